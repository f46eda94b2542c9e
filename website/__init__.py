"""Builds the documentation site from the pages under docs/: ``make docs``.

* ``pages``: copies the pages, and adds those that are generated or outside of docs/.
* ``samples``: the page with the decoded tokens of providers.
* ``reference``: the pages of the API reference. ``docstrings`` turns docstrings into Markdown for them.
* ``llms``: the list of pages for language models, ``llms.txt``.
* ``links``: checks the links of the built site.
* ``zensical.toml``: the settings of Zensical, with the navigation.
"""
