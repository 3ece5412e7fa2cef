// Names the search for screen readers, and lets the keyboard scroll wide code of notebooks.
document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
for (const block of document.querySelectorAll(".highlight-ipynb, .jp-OutputArea-output")) block.tabIndex = 0;
