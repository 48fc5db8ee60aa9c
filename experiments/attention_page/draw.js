"use strict";
// Drawing. Text reaches the page through textContent and attributes only.

const SVG = "http://www.w3.org/2000/svg";
const FAINT = 0.02; // lighter lines are not drawn
const LEVELS = 64; // shades of the big map
const FONT_SIZE = 13;
const LONGEST = 150; // pixels of a token

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const shape = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

const probe = document.body.appendChild(make("span", { hidden: "" }));
const font = () => getComputedStyle(document.body).fontFamily;

/** A colour of the style sheet as it is in this theme. */
function colour(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

const ruler = make("canvas").getContext("2d");
function widthOf(text) {
  ruler.font = `${FONT_SIZE}px ${font()}`;
  return ruler.measureText(text).width;
}

function shortened(text) {
  if (widthOf(text) <= LONGEST) return text;
  const letters = [...text].slice(0, LONGEST); // a letter is wider than a pixel
  while (letters.length > 1 && widthOf(`${letters.join("")}…`) > LONGEST) letters.pop();
  return `${letters.join("")}…`;
}

/** A token; `bidi` keeps one that is written from the right in its own place. */
function label(text, attributes) {
  const shown = shortened(text);
  const element = shape("text", { "font-size": FONT_SIZE, fill: colour("text"), ...attributes }, shown);
  element.setAttribute("unicode-bidi", "plaintext");
  if (shown !== text) element.append(shape("title", {}, text));
  return element;
}

/** What one head looks at: weight(t, s) between 0 and 1. */
function mapOf(bytes, start, rows, columns) {
  return {
    rows,
    columns,
    root: (t, s) => bytes[start + t * columns + s] / 255,
    weight: (t, s) => (bytes[start + t * columns + s] / 255) ** 2,
  };
}

/** A small picture, one pixel a cell; darkness is the root of the weight. */
function thumbnail(map, ink) {
  const canvas = make("canvas", { width: map.columns, height: map.rows });
  const context = canvas.getContext("2d");
  const image = context.createImageData(map.columns, map.rows);
  const [red, green, blue] = ink.match(/[\d.]+/g).map(Number);
  for (let t = 0, at = 0; t < map.rows; t++) {
    for (let s = 0; s < map.columns; s++, at += 4) {
      image.data.set([red, green, blue, Math.round(255 * map.root(t, s))], at);
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Tokens left and right and lines between them, as dark as their weight. */
function drawLines(map, from, to, captions, watch) {
  const step = 21;
  const left = Math.max(40, ...from.map((text) => widthOf(shortened(text)))) + 10;
  const gap = 150;
  const right = Math.max(40, ...to.map((text) => widthOf(shortened(text)))) + 10;
  const top = 34;
  const height = top + Math.max(from.length, to.length) * step + 8;
  const y = (i) => top + i * step + step / 2;
  const group = shape("g", { class: "lines" });
  const ink = colour("ink");
  const lines = [];
  for (let t = 0; t < map.rows; t++) {
    for (let s = 0; s < map.columns; s++) {
      const weight = map.weight(t, s);
      if (weight < FAINT) continue;
      const line = shape("line", {
        x1: left, y1: y(t), x2: left + gap, y2: y(s),
        stroke: ink, "stroke-width": 1 + 2 * weight, "stroke-opacity": Math.min(1, 0.06 + weight),
      });
      lines.push({ line, t, s });
      group.append(line);
    }
  }
  const shades = [];
  const column = (texts, side, x, anchor, boxX, boxWidth) => {
    texts.forEach((text, i) => {
      const box = shape("rect", { x: boxX, y: y(i) - step / 2 + 1, width: boxWidth, height: step - 2, rx: 4, fill: ink, "fill-opacity": 0 });
      const token = label(text, { x, y: y(i) + 4.5, "text-anchor": anchor });
      const both = shape("g", { class: "token" }, box, token);
      watch(both, side, i);
      shades.push({ box, side, i });
      group.append(both);
    });
  };
  column(from, "from", left - 6, "end", 0, left - 2);
  column(to, "to", left + gap + 6, "start", left + gap + 2, right);
  const caption = { y: 14, "font-size": 12, fill: colour("quiet") };
  group.append(
    shape("text", { ...caption, x: left - 6, "text-anchor": "end" }, captions[0]),
    shape("text", { ...caption, x: left + gap + 6 }, captions[1]),
  );
  /** Only what comes from, or goes to, one token. */
  const follow = (token) => {
    for (const { line, t, s } of lines) {
      const shown = !token || (token.from ?? t) === t && (token.to ?? s) === s;
      line.setAttribute("visibility", shown ? "visible" : "hidden");
    }
    for (const { box, side, i } of shades) {
      let weight = 0;
      if (token?.[side] === i) weight = 0.35;
      else if (token && side === "to" && token.from !== undefined) weight = map.weight(token.from, i);
      else if (token && side === "from" && token.to !== undefined) weight = map.weight(i, token.to);
      box.setAttribute("fill-opacity", weight * 0.6);
    }
  };
  return { group, width: left + gap + right + 2, height, follow };
}

/** The matrix with its tokens, not all of them where cells are small; one path for each shade. */
function drawMap(map, from, to, links, room, watch) {
  const side = Math.ceil(Math.max(30, ...from.map((text) => widthOf(shortened(text))))) + 12;
  const slope = Math.max(30, ...to.map((text) => widthOf(shortened(text))));
  const top = Math.ceil(Math.max(34, slope * 0.82 + 18)); // labels lean by 55 degrees
  const most = Math.min(580, room - side - slope * 0.6 - 8) / Math.max(map.rows, map.columns);
  const cell = Math.max(5, Math.min(26, Math.floor(most)));
  const every = Math.ceil((FONT_SIZE + 2) / cell);
  const [width, height] = [map.columns * cell, map.rows * cell];
  const group = shape("g", { class: "map" });
  const ink = colour("ink");
  group.append(shape("rect", { x: side, y: top, width, height, fill: "none", stroke: colour("edge") }));
  const paths = Array.from({ length: LEVELS + 1 }, () => []);
  for (let t = 0; t < map.rows; t++) {
    for (let s = 0; s < map.columns; s++) {
      const level = Math.round(map.root(t, s) * LEVELS);
      if (level) paths[level].push(`M${side + s * cell} ${top + t * cell}h${cell}v${cell}h${-cell}z`);
    }
  }
  paths.forEach((path, level) => {
    if (path.length) group.append(shape("path", { d: path.join(""), fill: ink, "fill-opacity": (level / LEVELS).toFixed(3), "shape-rendering": "crispEdges" }));
  });
  for (const [s, t] of links) {
    const place = { x: side + s * cell + 1, y: top + t * cell + 1, width: cell - 2, height: cell - 2 };
    group.append(shape("rect", { ...place, fill: "none", stroke: colour("mark"), "stroke-width": 1.5, rx: 2 }));
  }
  from.forEach((text, t) => {
    if (t % every) return;
    const token = label(text, { x: side - 7, y: top + (t + 0.5) * cell + 4.5, "text-anchor": "end" });
    watch(token, "from", t);
    group.append(token);
  });
  to.forEach((text, s) => {
    if (s % every) return;
    const [x, y] = [side + (s + 0.5) * cell + 3, top - 7];
    const token = label(text, { x, y, transform: `rotate(-55 ${x} ${y})` });
    watch(token, "to", s);
    group.append(token);
  });
  const cursor = shape("path", { fill: "none", stroke: colour("mark"), "stroke-opacity": 0.9 });
  const plate = shape("rect", { x: side, y: top, width, height, fill: "transparent" });
  group.append(cursor, plate);
  const row = (t) => `M${side} ${top + t * cell}h${width}v${cell}h${-width}z`;
  const column = (s) => `M${side + s * cell} ${top}h${cell}v${height}h${-cell}z`;
  const follow = (token) => {
    const parts = token ? [token.from !== undefined && row(token.from), token.to !== undefined && column(token.to)] : [];
    cursor.setAttribute("d", parts.filter(Boolean).join(""));
  };
  const cellAt = (x, y) => ({
    from: Math.min(map.rows - 1, Math.max(0, Math.floor((y - top) / cell))),
    to: Math.min(map.columns - 1, Math.max(0, Math.floor((x - side) / cell))),
  });
  return { group, plate, cellAt, follow, width: side + width + slope * 0.6 + 8, height: top + height + 6 };
}
