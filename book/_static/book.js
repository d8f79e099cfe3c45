// What html-manager, MathJax and Font Awesome need to get along on one page, and what
// readers without a mouse need beyond what the theme gives them.

// The theme's Font Awesome replaces <i> by <svg>; html-manager keeps hold of its <i>, so put the <svg> inside.
if (window.FontAwesome) FontAwesome.config.autoReplaceSvg = "nest";

// The arrow keys scroll what has the focus. The theme sees to that at the start, but not for what is folded then.
const sizes = new ResizeObserver((changes) => {
  for (const { target } of changes) target.tabIndex = target.scrollWidth > target.clientWidth ? 0 : -1;
});
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll("pre")) sizes.observe(box);
});

// The arrows that unfold a part of the contents have no name.
document.addEventListener("DOMContentLoaded", () => {
  for (const arrow of document.querySelectorAll("nav details > summary")) {
    arrow.setAttribute("aria-label", `Pages of ${arrow.closest("li").querySelector("a").textContent.trim()}`);
  }
  // Folded outputs say "Show code cell output", and myst-nb gives them another name.
  for (const fold of document.querySelectorAll("details.hide > summary[aria-label]")) fold.removeAttribute("aria-label");
});

window.addEventListener("load", () => {
  // html-manager calls MathJax 2; the page has MathJax 3, or none.
  if (window.MathJax) {
    MathJax.Hub = {
      Queue([, , element]) {
        element.classList.add("tex2jax_process"); // the page has MathJax pass over what is not marked
        MathJax.startup.promise.then(() => MathJax.typesetPromise([element]));
      },
    };
  }
  if (document.querySelector('script[type="application/vnd.jupyter.widget-view+json"]')) {
    new MutationObserver(nameSliders).observe(document.body, { subtree: true, childList: true, characterData: true });
  }
});

// html-manager leaves the handle without a name, says "3" where the figure says "stage 3", and lets readers type
// into a text that does not listen.
function nameSliders() {
  for (const slider of document.querySelectorAll(".widget-slider")) {
    const handle = slider.querySelector("[role=slider]");
    const label = slider.querySelector(".widget-label");
    const readout = slider.querySelector(".widget-readout");
    if (!handle || !readout) continue;
    handle.setAttribute("aria-label", label.textContent);
    handle.setAttribute("aria-valuetext", readout.textContent);
    readout.contentEditable = "false";
    if (label.title === "null") label.removeAttribute("title");
  }
}
