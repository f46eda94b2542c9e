// What the theme adds to a page after it has loaded: tables that scroll, and buttons for blocks of code. Somebody without
// a mouse has to reach the former, and somebody who hears the page has to tell the latter apart.
addEventListener("load", () => {
  const improve = () => {
    document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])").forEach((part) => {
      part.tabIndex = 0;
      part.setAttribute("role", "group");
      part.setAttribute("aria-label", "Table");
    });
    document.querySelectorAll("nav.md-code__nav:not([aria-label])").forEach((part) => {
      improve.count = (improve.count ?? 0) + 1;
      part.setAttribute("aria-label", `Block of code ${improve.count}`);
    });
  };
  improve();
  new MutationObserver(improve).observe(document.body, { childList: true, subtree: true });
});
