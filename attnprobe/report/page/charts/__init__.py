"""Charts as SVG without colours of their own: classes of the page's style say what a mark is, in light and dark."""
