// Parts of a page that scroll, and what the theme adds after it has loaded: buttons for blocks of code. The former
// must be reachable without a mouse, and screen readers must be able to tell the latter apart.
addEventListener("load", () => {
  const improve = () => {
    const wide = { ".md-typeset__scrollwrap": "Table", '.md-typeset p:has(> img[src*="pictures/"])': "Diagram" };
    Object.entries(wide).forEach(([selector, name]) => {
      document.querySelectorAll(`${selector}:not([tabindex])`).forEach((part) => {
        part.tabIndex = 0;
        part.setAttribute("role", "group");
        part.setAttribute("aria-label", name);
      });
    });
    document.querySelectorAll("nav.md-code__nav:not([aria-label])").forEach((part) => {
      improve.count = (improve.count ?? 0) + 1;
      part.setAttribute("aria-label", `Block of code ${improve.count}`);
    });
  };
  improve();
  new MutationObserver(improve).observe(document.body, { childList: true, subtree: true });
});
