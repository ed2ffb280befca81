// The chain of trust as inline SVG: one box a link, its mark and colour from its checks. Text only, never markup.

const SVG = "http://www.w3.org/2000/svg";
const MARKS = { holds: "✓", waived: "~", refused: "✗", unreached: "·" };
const WORDS = { holds: "holds", waived: "holds, with waivers", refused: "REFUSED", unreached: "not reached" };
const [WIDTH, HEIGHT, GAP] = [560, 56, 18];

/** Draw links from top to bottom; `chosen` is called with the link whose box was clicked. */
export function drawChain(links, chosen) {
  const height = links.length * (HEIGHT + GAP) - GAP + 4;
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img" });
  const title = element("title");
  title.textContent = links.map((link) => `${link.name}: ${WORDS[link.state]}`).join("; ");
  svg.append(title);
  links.forEach((link, at) => {
    const y = at * (HEIGHT + GAP) + 2;
    if (at) svg.append(element("line", { x1: 30, y1: y - GAP, x2: 30, y2: y }));
    svg.append(box(link, y, chosen));
  });
  return svg;
}

function box(link, y, chosen) {
  const group = element("g", { "data-state": link.state, "data-name": link.name, tabindex: 0 });
  const rect = { x: 2, y, width: WIDTH - 4, height: HEIGHT, rx: 8, class: link.state };
  group.append(
    element("rect", rect),
    words(MARKS[link.state], { x: 22, y: y + 34, class: link.state, "font-size": 22, fill: "currentColor" }),
    words(link.name, { x: 56, y: y + 24, class: "name" }),
    words(link.says, { x: 56, y: y + 44, class: "says" }),
    words(WORDS[link.state], { x: WIDTH - 14, y: y + 24, class: link.state, "text-anchor": "end", fill: "currentColor" }),
  );
  group.addEventListener("click", () => chosen(link));
  group.addEventListener("keydown", ({ key }) => key === "Enter" && chosen(link));
  return group;
}

function words(text, attributes) {
  const node = element("text", attributes);
  node.textContent = text;
  return node;
}

function element(name, attributes = {}) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}
