// The file that is saved, and the keys and clicks that change what is shown.

// ---------------------------------------------------------------- export

/** What is shown, all runs beside each other, as a file of its own. */
function exported() {
  const margin = 20;
  const caption = 44;
  const width = panels.reduce((sum, panel) => sum + panel.width + margin, margin);
  const height = Math.max(...panels.map((panel) => panel.height)) + caption + 2 * margin;
  const root = shape("svg", { xmlns: SVG, width, height, viewBox: `0 0 ${width} ${height}`, "font-family": font() });
  root.append(shape("rect", { width, height, fill: colour("panel") }));
  let x = margin;
  panels.forEach((panel, run) => {
    const head = state.heads[run];
    const text = `${head.part} · layer ${head.layer} · head ${head.head}`;
    root.append(
      shape("text", { x, y: margin + 12, "font-size": 14, "font-weight": 600, fill: colour("text") }, payload.runs[run].name),
      shape("text", { x, y: margin + 30, "font-size": 12, fill: colour("quiet") }, text));
    const copy = panel.picture.cloneNode(true);
    copy.setAttribute("x", x);
    copy.setAttribute("y", margin + caption);
    root.append(copy);
    x += panel.width + margin;
  });
  for (const element of root.querySelectorAll("[style]")) element.removeAttribute("style");
  return new XMLSerializer().serializeToString(root);
}

function save() {
  const link = make("a", { download: "attention.svg" });
  link.href = URL.createObjectURL(new Blob([exported()], { type: "image/svg+xml" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// ---------------------------------------------------------------- keys and clicks

const help = () => (byId("keys").open ? byId("keys").close() : byId("keys").showModal());
const KEYS = {
  ArrowLeft: () => move(0, -1), ArrowRight: () => move(0, 1), ArrowUp: () => move(-1, 0), ArrowDown: () => move(1, 0),
  a: nextPart, n: () => chooseSentence(state.sentence + 1), p: () => chooseSentence(state.sentence - 1),
  r: () => { state.run = (state.run + 1) % payload.runs.length; show(); },
  l: () => byId("linked").click(), t: toggleTheme, s: save, "?": help,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
  const action = Object.hasOwn(KEYS, event.key) && KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

function start() {
  payload.sentences.forEach((sentence, i) => {
    byId("sentence").append(make("option", { value: i, dir: "auto" }, `${i + 1}. ${sentence.title}`));
  });
  byId("runs").append(...payload.runs.map(() => make("section", { class: "run" })));
  byId("runs").classList.toggle("single", payload.runs.length === 1);
  byId("together").hidden = payload.runs.length === 1;
  document.title = `Attention: ${payload.runs.map((run) => run.name).join(", ")}`;
  const click = (id, action) => byId(id).addEventListener("click", action);
  click("previous", () => chooseSentence(state.sentence - 1));
  click("next", () => chooseSentence(state.sentence + 1));
  click("export", save);
  click("theme", toggleTheme);
  click("help", help);
  byId("sentence").addEventListener("change", (event) => { chooseSentence(Number(event.target.value)); event.target.blur(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  addEventListener("hashchange", () => { fromAddress(); show(); });
  let waiting;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(show, 150); });
  fromAddress();
  show();
}

start();
