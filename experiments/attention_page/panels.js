// The panel of a run: the maps of all heads, what is known of one, and that one large.

const panels = []; // what each of them shows now

function tabs(run) {
  const row = make("div", { class: "tabs" });
  for (const part of partsOf(run)) {
    const button = make("button", { type: "button", "aria-pressed": state.heads[run].part === part }, part);
    button.addEventListener("click", () => choosePart(run, part));
    row.append(button);
  }
  return row;
}

/** Colours a frame by what happens to the loss when the head is removed. */
function effectColour(change, most) {
  const share = Math.round(Math.min(1, Math.abs(change) / most) * 100);
  return `color-mix(in srgb, var(--${change > 0 ? "worse" : "better"}) ${share}%, var(--edge))`;
}

function grid(run, maps) {
  const { heads, effects } = payload.runs[run];
  const shown = heads.filter((head) => head.part === state.heads[run].part);
  const [numLayers, numHeads] = ["layer", "head"].map((axis) => Math.max(...shown.map((h) => h[axis])) + 1);
  const size = Math.max(30, Math.min(84, Math.floor(430 / numHeads)));
  const element = make("div", { class: "heads" });
  element.style.gridTemplateColumns = `auto repeat(${numHeads}, ${size}px)`;
  element.append(make("span", { class: "corner" }, "layer"));
  for (let h = 0; h < numHeads; h++) element.append(make("span", {}, numHeads < 6 ? `head ${h}` : `${h}`));
  const most = Math.max(1e-9, ...Object.values(effects).map((effect) => Math.abs(effect.change)));
  const ink = colour("ink");
  for (let layer = 0; layer < numLayers; layer++) {
    element.append(make("span", {}, `${layer}`));
    for (let h = 0; h < numHeads; h++) {
      const head = shown.find((one) => one.layer === layer && one.head === h);
      if (!head) { element.append(make("span")); continue; }
      const effect = effects[nameOf(head)];
      const title = [`layer ${layer}, head ${h}`];
      if (effect) title.push(`${number(effect.change)} without it`);
      title.push(...(payload.runs[run].roles[nameOf(head)] ?? []).filter((r) => r.label).map((r) => r.role));
      const tile = make("button", {
        type: "button", class: "tile", title: title.join(" · "), "aria-label": title.join(", "),
        "data-head": nameOf(head), "aria-pressed": same(head, state.heads[run]),
      }, thumbnail(maps.get(nameOf(head)), ink));
      if (maps.get(nameOf(head)).columns > size) tile.firstChild.style.imageRendering = "auto";
      tile.style.background = effect ? effectColour(effect.change, most) : "var(--edge)";
      tile.addEventListener("click", () => select(run, head));
      element.append(tile);
    }
  }
  const figure = make("figure", {}, element, weightLegend());
  if (Object.keys(effects).length) figure.append(effectLegend(most));
  return figure;
}

function weightLegend() {
  const bar = make("i");
  const stops = [0, 0.1, 0.3, 0.6, 1].map((w) => `color-mix(in srgb, var(--ink) ${100 * Math.sqrt(w)}%, var(--panel)) ${100 * w}%`);
  bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  return make("div", { class: "legend" }, "weight 0", bar, "1");
}

function effectLegend(most) {
  const bar = make("i");
  bar.style.background = "linear-gradient(to right, var(--better), var(--edge), var(--worse))";
  return make("div", { class: "legend" }, `frame: loss without the head ${number(-most)}`, bar, `+${number(most)}`);
}

function entropyOf(map) {
  let total = 0;
  for (let t = 0; t < map.rows; t++) {
    const row = Array.from({ length: map.columns }, (_, s) => map.weight(t, s));
    const sum = row.reduce((a, b) => a + b, 0) || 1;
    for (const weight of row) if (weight > 0) total -= (weight / sum) * Math.log(weight / sum);
  }
  return total / map.rows;
}

function facts(run, map) {
  const { effects, roles, scores } = payload.runs[run];
  const head = state.heads[run];
  const element = make("div", { class: "facts" });
  const list = make("dl");
  const add = (term, text) => list.append(make("dt", {}, term), make("dd", { class: "wide" }, text));
  add("entropy", `${number(entropyOf(map), 2)} nats, this sentence`);
  for (const [name, value] of Object.entries(scores[nameOf(head)] ?? {})) add(name, number(value));
  const effect = effects[nameOf(head)];
  if (effect) {
    const range = Number.isFinite(effect.low) ? ` (${number(effect.low)} to ${number(effect.high)})` : "";
    add("loss without it", `${effect.change > 0 ? "+" : ""}${number(effect.change)}${range}`);
    if (Number.isFinite(effect.p)) add("p of that", effect.p.toPrecision(2));
  }
  element.append(make("h3", {}, `${head.part} · layer ${head.layer} · head ${head.head}`), list);
  if (roles[nameOf(head)]?.length) {
    const table = make("dl");
    for (const { role, score, chance, label } of roles[nameOf(head)]) {
      const bar = make("i", { title: `chance ${number(chance, 2)}` });
      bar.style.width = `${100 * Math.max(0, Math.min(1, score))}%`;
      table.append(make("dt", label ? { class: "label" } : {}, role), make("dd", {}, number(score, 2)), make("dd", { class: "bar" }, bar));
    }
    element.append(make("h3", {}, "roles"), table);
  }
  return element;
}

/** Matrix and lines of one head in one SVG, side by side where there is room. */
function drawView(run, map, room, watch) {
  const view = viewOf(run);
  const head = state.heads[run];
  const [from, to] = SIDES[head.part].map((side) => view[side]);
  const across = ACROSS.includes(head.part);
  const lines = drawLines(map, from, to, across ? ["writes", "looks at"] : ["from", "looks at"], watch);
  const matrix = drawMap(map, from, to, across ? view.links : [], room, watch);
  const beside = lines.width + 32 + matrix.width <= room;
  const [x, y] = beside ? [matrix.width + 32, 0] : [0, matrix.height + 16];
  lines.group.setAttribute("transform", `translate(${x} ${y})`);
  const width = Math.ceil(Math.max(matrix.width, x + lines.width));
  const height = Math.ceil(Math.max(matrix.height, y + lines.height));
  const picture = shape("svg", {
    xmlns: SVG, width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "font-family": font(),
    "aria-label": `attention of ${head.part} layer ${head.layer} head ${head.head}`,
  }, matrix.group, lines.group);
  return { picture, width, height, lines, matrix, from, to };
}

function drawRun(run, maps, element) {
  const map = maps.get(nameOf(state.heads[run]));
  const about = payload.runs[run];
  const readout = make("p", { class: "readout", dir: "auto" });
  const left = make("div", { class: "side" }, make("div", {}, tabs(run), grid(run, maps)), facts(run, map));
  const right = make("div", { class: "view" });
  element.className = run === state.run ? "run focused" : "run";
  element.replaceChildren(
    make("h2", { dir: "auto" }, about.name), make("p", { class: "about", dir: "auto" }, about.about),
    make("div", { class: "body" }, left, right));
  let drawn;
  const follow = (token) => {
    drawn.lines.follow(token);
    drawn.matrix.follow(token);
    const both = token?.from !== undefined && token?.to !== undefined;
    const name = both ? `${drawn.from[token.from]} → ${drawn.to[token.to]}` : "";
    readout.textContent = both ? `${name}   ${number(map.weight(token.from, token.to))}` : "";
  };
  const watch = (target, side, index) => {
    target.style.cursor = "pointer";
    target.addEventListener("pointerenter", () => follow({ [side]: index }));
    target.addEventListener("pointerleave", () => follow(state.pinned[run]));
    target.addEventListener("click", () => {
      const pinned = state.pinned[run];
      state.pinned[run] = pinned?.[side] === index ? undefined : { [side]: index };
      follow(state.pinned[run]);
    });
  };
  drawn = drawView(run, map, right.clientWidth, watch);
  drawn.matrix.plate.addEventListener("pointermove", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawn.matrix.plate.getScreenCTM().inverse());
    follow(drawn.matrix.cellAt(at.x, at.y));
  });
  drawn.matrix.plate.addEventListener("pointerleave", () => follow(state.pinned[run]));
  right.append(drawn.picture, readout);
  follow(state.pinned[run]);
  panels[run] = drawn;
}

async function show() {
  toAddress();
  const shown = location.hash;
  byId("sentence").value = state.sentence;
  byId("theme").textContent = isDark() ? "Light" : "Dark";
  const bytes = await Promise.all(payload.runs.map((_, run) => weightsOf(state.sentence, run)));
  if (location.hash !== shown) return; // something else was asked for meanwhile
  const focus = document.activeElement?.dataset?.head;
  [...byId("runs").children].forEach((element, run) => drawRun(run, mapsOf(run, bytes[run]), element));
  if (focus) document.querySelector(`.run.focused [aria-pressed="true"][data-head]`)?.focus({ preventScroll: true });
  document.documentElement.dataset.shown = shown;
}
