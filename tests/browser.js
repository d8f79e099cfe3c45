// What tests/test_browser.py looks at inside a page. Faults are texts that name the element.

window.tl = (() => {
  const INTERACTIVE = "a[href], button, input:not([type=hidden]), select, textarea, summary, [role=slider]";

  const visible = (element) => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && box.height > 0 && element.checkVisibility({ visibilityProperty: true });
  };

  const describe = (element) => {
    const names = [...element.classList].map((name) => "." + name).join("");
    const text = (element.ariaLabel || element.alt || element.innerText || "").replace(/\s+/g, " ").trim();
    return element.localName + (element.id && "#" + element.id) + names + (text && ` '${text.slice(0, 60)}'`);
  };

  // What of the page stands where no reader gets: beside the viewport, or cut off by a box that does not scroll.
  const outOfReach = () => {
    const faults = [];
    const page = document.scrollingElement;
    if (page.scrollWidth > page.clientWidth) {
      faults.push(`the page is ${page.scrollWidth} wide, the window ${page.clientWidth}`);
    }
    for (const element of document.querySelectorAll(".bd-article-container *, footer *")) {
      if (!visible(element) || element.closest("svg *, mjx-assistive-mml")) continue;
      let { left, right } = element.getBoundingClientRect();
      if (right - left <= 1) continue; // for screen readers only
      let box = element.parentElement;
      for (; box && box !== document.body; box = box.parentElement) {
        const style = getComputedStyle(box).overflowX;
        if (style === "visible") continue;
        const edge = box.getBoundingClientRect();
        if (style === "auto" || style === "scroll") [left, right] = [edge.left, edge.right]; // it scrolls: where is it?
        else if (left < edge.left - 1 || right > edge.right + 1) break;
      }
      if (box && box !== document.body) faults.push(`${describe(element)} is cut off by ${describe(box)}`);
      else if (left < -1 || right > innerWidth + 1) {
        faults.push(`${describe(element)} reaches from ${left | 0} to ${right | 0}`);
      }
    }
    return faults;
  };

  // Pictures shown in an interactive figure.
  const shown = (figure) => [...figure.querySelectorAll("img")].filter(visible);
  const pictures = (figure) => shown(figure).map((image) => image.src).join(" ");
  const alts = (figure) => shown(figure).map((image) => image.alt).join(" ");

  // Focus: collected while a test presses Tab.
  const style = (element) => {
    const { outlineStyle, outlineWidth, outlineColor, boxShadow, borderColor, backgroundColor, color, textDecoration } =
      getComputedStyle(element);
    const outline = outlineStyle === "none" ? "none" : outlineStyle + outlineWidth + outlineColor;
    return [outline, boxShadow, borderColor, backgroundColor, color, textDecoration].join("|");
  };
  let atRest, focused, unmarked, astray;
  const watchFocus = (start) => { // of the whole page, or from an element on
    const from = start && document.querySelector(start);
    const sheet = document.createElement("style");
    sheet.textContent = "* { transition: none !important; animation: none !important; }";
    document.head.append(sheet);
    document.activeElement.blur();
    // Of the radio buttons of one name, Tab reaches one; arrow keys the others.
    atRest = new Map(
      [...document.querySelectorAll(INTERACTIVE)]
        .filter((element) => visible(element) && !element.disabled && element.type !== "radio")
        .filter((element) => !from || from.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING)
        .map((element) => [element, style(element)]),
    );
    focused = new Set();
    unmarked = new Set();
    astray = new Set();
    document.addEventListener("focusin", ({ target }) => {
      focused.add(target);
      if (atRest.get(target) === style(target)) unmarked.add(target);
      const { left, right } = target.getBoundingClientRect();
      if (right <= 0 || left >= innerWidth) astray.add(target);
    });
    return atRest.size;
  };
  const missed = () => [...atRest.keys()].filter((element) => !focused.has(element) && visible(element)).map(describe);
  const focusFaults = () => [
    ...missed().map((name) => `Tab does not reach ${name}`),
    ...[...unmarked].map((element) => `no sign of focus on ${describe(element)}`),
    ...[...astray].map((element) => `focus on ${describe(element)}, which is out of sight`),
  ];

  // Serious faults axe-core finds; `known` are those that stand in the test's list, by their place there.
  const axeFaults = async (known, rules) => {
    const { violations } = await axe.run(document, { resultTypes: ["violations"], ...rules });
    const faults = [], met = [];
    for (const { id, impact, nodes, help } of violations) {
      if (impact !== "serious" && impact !== "critical") continue;
      for (const { target, html, any } of nodes) {
        const element = document.querySelector(target[0]);
        const place = known.findIndex(([rule, selector]) => rule === id && element.matches(selector));
        if (place >= 0) met.push(place);
        else faults.push(`${id} (${help}): ${target} ${html.slice(0, 150)} ${any[0]?.message ?? ""}`);
      }
    }
    return { faults, met };
  };

  return { visible, describe, outOfReach, pictures, alts, watchFocus, missed, focusFaults, axeFaults };
})();
