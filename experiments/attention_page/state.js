// What is shown, the weights of it, the address that holds it, and what changes it.

const payload = JSON.parse(document.getElementById("payload").textContent);
const SIDES = { encoder: ["source", "source"], decoder: ["reads", "reads"], cross: ["writes", "source"], alignment: ["writes", "source"] };
const ACROSS = ["cross", "alignment"];
const byId = (id) => document.getElementById(id);
const state = { sentence: 0, run: 0, heads: [], pinned: [] };

const nameOf = (head) => `${head.part}.${head.layer}.${head.head}`;
const same = (one, other) => one && other && nameOf(one) === nameOf(other);
const viewOf = (run) => payload.sentences[state.sentence].views[run];
const partsOf = (run) => [...new Set(payload.runs[run].heads.map((head) => head.part))];
const number = (value, digits = 3) => (Number.isFinite(value) ? value.toFixed(digits).replace(/^-/, "−") : "–");

// ---------------------------------------------------------------- weights

const inflated = new Map();
function weightsOf(sentence, run) {
  const key = `${sentence}.${run}`;
  if (!inflated.has(key)) {
    const packed = Uint8Array.from(atob(payload.sentences[sentence].views[run].weights), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    inflated.set(key, new Response(stream).arrayBuffer().then((buffer) => new Uint8Array(buffer)));
  }
  return inflated.get(key);
}

/** The maps of a view by the name of their head; all heads lie one after another. */
function mapsOf(run, bytes) {
  const view = viewOf(run);
  const maps = new Map();
  let start = 0;
  for (const head of payload.runs[run].heads) {
    const [rows, columns] = SIDES[head.part].map((side) => view[side].length);
    maps.set(nameOf(head), mapOf(bytes, start, rows, columns));
    start += rows * columns;
  }
  return maps;
}

// ---------------------------------------------------------------- address

function toAddress() {
  const heads = state.heads.map(nameOf).join(",");
  history.replaceState(null, "", `#sentence=${state.sentence}&run=${state.run}&heads=${heads}`);
}

function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const within = (name, count) => Math.min(Math.max(parseInt(given.get(name), 10) || 0, 0), count - 1);
  state.sentence = within("sentence", payload.sentences.length);
  state.run = within("run", payload.runs.length);
  const wanted = (given.get("heads") ?? "").split(",");
  state.heads = payload.runs.map(({ heads }, run) =>
    heads.find((head) => nameOf(head) === wanted[run]) ?? heads.find((head) => ACROSS.includes(head.part)) ?? heads[0]);
}

// ---------------------------------------------------------------- changes

/** Shows a head; the other runs follow where they have one in the same place. */
function select(run, head) {
  if (!head) return;
  state.run = run;
  state.heads[run] = head;
  if (byId("linked").checked) {
    payload.runs.forEach(({ heads }, other) => {
      if (other === run) return;
      const alike = (part) => part === head.part || (ACROSS.includes(part) && ACROSS.includes(head.part));
      const found = heads.filter((one) => alike(one.part));
      const exact = found.find((one) => one.layer === head.layer && one.head === head.head);
      if (found.length) state.heads[other] = exact ?? found[0];
    });
  }
  show();
}

function move(layers, heads) {
  const at = state.heads[state.run];
  const target = { part: at.part, layer: at.layer + layers, head: at.head + heads };
  select(state.run, payload.runs[state.run].heads.find((head) => same(head, target)));
}

function nextPart() {
  const at = state.heads[state.run];
  const parts = partsOf(state.run);
  choosePart(state.run, parts[(parts.indexOf(at.part) + 1) % parts.length]);
}

function choosePart(run, part) {
  const at = state.heads[run];
  const heads = payload.runs[run].heads.filter((head) => head.part === part);
  select(run, heads.find((head) => head.layer === at.layer && head.head === at.head) ?? heads[0]);
}

function chooseSentence(index) {
  const count = payload.sentences.length;
  state.sentence = (index + count) % count;
  state.pinned = [];
  show();
}

function toggleTheme() {
  const root = document.documentElement;
  root.dataset.theme = isDark() ? "light" : "dark";
  show();
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}
