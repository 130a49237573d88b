"use strict";
// The transcript viewer. Data is only ever set as text (textContent, value), never as markup.
(() => {
  const PAGE = 50; // episodes of a page of the list
  const SHOWN = 6000; // characters of a turn that are shown at first, and at the first "show more"
  const KEPT = 12; // opened chunks that are kept
  const SHADES = 6;
  const BARS = 1000; // of tokens that have no text, a turn
  const NARROW = matchMedia("(max-width: 60rem)"); // as in viewer.css: list and episode one at a time
  const $ = (id) => document.getElementById(id);

  // ---- data -------------------------------------------------------------------------------------------------------

  async function unpack(base64) {
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  const parsed = new Promise((resolve) => {
    if (document.readyState !== "loading") resolve();
    else document.addEventListener("DOMContentLoaded", resolve, { once: true });
  });
  const opened = new Map();

  async function chunk(number) {
    await parsed; // chunks stand behind this script
    let found = opened.get(number);
    opened.delete(number);
    found ??= unpack($("chunk-" + number).textContent);
    opened.set(number, found);
    if (opened.size > KEPT) opened.delete(opened.keys().next().value);
    return found;
  }

  const episode = async (row) => (await chunk(columns.chunk[row]))[columns.place[row]];

  let index, columns, haystacks;
  const state = { rows: [], page: 0, row: -1, beside: null, shading: "none" };

  // ---- text and elements ------------------------------------------------------------------------------------------

  // Control characters, direction marks and halves of surrogate pairs are spelt, so that none acts or hides.
  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

  function plain(text) {
    return text.replace(HIDDEN, (char) => {
      const code = char.charCodeAt(0);
      return code < 256 ? "\\x" + code.toString(16).padStart(2, "0") : "\\u" + code.toString(16).padStart(4, "0");
    });
  }

  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name === "className" || name === "textContent" || name.startsWith("on")) element[name] = value;
      else if (value !== undefined && value !== null) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  const number = (value) => value.toLocaleString("en");
  const plural = (value, word) => `${number(value)} ${word}${value === 1 ? "" : "s"}`;
  const roleClass = (role) => "role-" + (role % 6);
  const VERDICT = { 1: ["right", "✓"], 0: ["wrong", "✗"], "-1": ["ungraded", "–"] };

  function verdict(row) {
    const [word, sign] = VERDICT[columns.correct[row]];
    return make("span", { className: "verdict " + word, title: word }, make("span", { "aria-hidden": "true" }, sign), make("span", { className: "aside" }, word));
  }

  // ---- filters ----------------------------------------------------------------------------------------------------

  const CHOICES = ["run", "source", "outcome", "round", "origin"];
  const ORDERS = {
    "as played": null,
    "fewest tokens": (a, b) => columns.tokens[a] - columns.tokens[b] || a - b,
    "most tokens": (a, b) => columns.tokens[b] - columns.tokens[a] || a - b,
    "most turns": (a, b) => columns.turns[b] - columns.turns[a] || a - b,
    "by problem": (a, b) => columns.problem[a] - columns.problem[b] || a - b,
  };

  function offer(select, options) {
    select.replaceChildren(...options.map(([value, text]) => make("option", { value }, plain(text))));
    // One kind alone is nothing to choose from.
    select.closest("label").hidden = options.length < 3 && select.id !== "correct" && select.id !== "order";
  }

  function offerAll() {
    for (const name of CHOICES) {
      offer($(name), [["", "all"], ...index[name + "s"].map((text, place) => [place, text || "–"])]);
    }
    offer($("correct"), [["", "all"], ["1", "right"], ["0", "wrong"], ["-1", "ungraded"]]);
    offer($("order"), Object.keys(ORDERS).map((name) => [name, name]));
  }

  let search = 0; // the latest; older ones stop

  function matches() {
    const wanted = [...CHOICES, "correct"].filter((name) => $(name).value !== "").map((name) => [columns[name], Number($(name).value)]);
    const words = $("text").value.trim().toLowerCase();
    const deep = words && $("deep").checked;
    const inProblem = words ? haystacks.map((text) => text.includes(words)) : null;
    const rows = [], others = [];
    for (let row = 0; row < columns.run.length; row++) {
      if (!wanted.every(([column, value]) => column[row] === value)) continue;
      if (!inProblem || inProblem[columns.problem[row]]) rows.push(row);
      else if (deep) others.push(row);
    }
    return { rows, others, words };
  }

  function apply() {
    const mine = ++search;
    const { rows, others, words } = matches();
    order(rows);
    state.rows = rows;
    state.page = 0;
    showList(others.length ? ", 0% of the turns searched" : "");
    if (others.length) searchTurns(mine, rows, others, words);
  }

  function order(rows) {
    const by = ORDERS[$("order").value];
    if (by) rows.sort(by);
    else rows.sort((a, b) => a - b);
  }

  // Chunk by chunk, so that the page stays alive; what is found shows at once.
  async function searchTurns(mine, rows, others, words) {
    const byChunk = new Map();
    for (const row of others) {
      if (!byChunk.has(columns.chunk[row])) byChunk.set(columns.chunk[row], []);
      byChunk.get(columns.chunk[row]).push(row);
    }
    let done = 0;
    for (const [place, candidates] of byChunk) {
      const texts = await chunk(place);
      if (mine !== search) return;
      const found = candidates.filter((row) => texts[columns.place[row]].turns.some((turn) => turn.text.toLowerCase().includes(words)));
      done++;
      if (found.length || done === byChunk.size || done % 8 === 0) {
        rows.push(...found);
        order(rows);
        showList(done < byChunk.size ? `, ${Math.round((100 * done) / byChunk.size)}% of the turns searched` : "");
      }
    }
  }

  // ---- list -------------------------------------------------------------------------------------------------------

  function showList(more = "") {
    const pages = Math.max(1, Math.ceil(state.rows.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const from = state.page * PAGE;
    $("count").textContent = `${number(state.rows.length)} of ${plural(columns.run.length, "episode")}${more}`;
    $("list").replaceChildren(...state.rows.slice(from, from + PAGE).map(item));
    $("page").textContent = `${number(state.page + 1)} of ${number(pages)}`;
    $("previous").disabled = state.page === 0;
    $("next").disabled = state.page === pages - 1;
    mark();
  }

  function item(row) {
    const [id, question] = index.problems[columns.problem[row]];
    const facts = [
      index.runs.length > 1 ? index.runs[columns.run[row]] : "",
      index.rounds[columns.round[row]],
      columns.step[row] >= 0 ? "step " + columns.step[row] : "",
      plural(columns.tokens[row], "token"),
      index.outcomes[columns.outcome[row]] === "answered" ? "" : index.outcomes[columns.outcome[row]].replace("_", " "),
    ];
    return make(
      "li",
      { role: "option", id: "row-" + row, "aria-selected": "false", onclick: () => open(row, true) },
      verdict(row),
      make("span", { className: "question", dir: "auto" }, plain(question.slice(0, 160)) || "(no question)"),
      make("span", { className: "facts" }, plain(facts.filter(Boolean).join(" · "))),
      make("span", { className: "id" }, plain(id.slice(0, 60)) + (columns.sample[row] ? " / " + columns.sample[row] : "")),
    );
  }

  function mark() {
    for (const element of $("list").children) {
      const chosen = element.id === "row-" + state.row;
      element.setAttribute("aria-selected", String(chosen));
      if (chosen) element.scrollIntoView({ block: "nearest" });
    }
    if (document.getElementById("row-" + state.row)) $("list").setAttribute("aria-activedescendant", "row-" + state.row);
    else $("list").removeAttribute("aria-activedescendant");
  }

  function turnPage(by) {
    state.page = Math.max(0, state.page + by);
    showList();
    $("list").scrollTop = 0;
  }

  function step(by) {
    const at = state.rows.indexOf(state.row);
    const to = at < 0 ? state.page * PAGE : Math.min(Math.max(at + by, 0), state.rows.length - 1);
    if (to >= state.rows.length) return;
    const page = Math.floor(to / PAGE);
    if (page !== state.page) {
      state.page = page;
      showList();
    }
    open(state.rows[to]);
  }

  // The open episode, or the first of the page where a filter hides it.
  function enter() {
    if (!state.rows.length) return;
    open(state.rows.includes(state.row) ? state.row : state.rows[state.page * PAGE], true);
  }

  // ---- one episode ------------------------------------------------------------------------------------------------

  let opening = 0;

  async function open(row, focus = false) {
    const mine = ++opening;
    state.row = row;
    mark();
    const others = alike(row);
    const beside = besideOf(others);
    const first = await episode(row);
    const second = beside === undefined ? null : await episode(beside);
    if (mine !== opening) return;
    $("shown").replaceChildren(
      bar(row, others, beside, first),
      problem(row, first),
      make("div", { className: second ? "sides two" : "sides" }, side(row, first, !second), second ? side(beside, second, false) : null),
    );
    if (state.shading === "surprise" && $("shown").querySelector(".tokens")) $("shown").append(tokenLine());
    $("shown").scrollTop = 0;
    $("viewer").classList.add("reading");
    if (!focus) return;
    $("shown").focus({ preventScroll: true });
    if (NARROW.matches) $("shown").parentElement.scrollIntoView();
  }

  const SHADINGS = ["none", "surprise", "mask"];

  async function shade(how) {
    state.shading = how;
    if (state.row >= 0) await open(state.row);
  }

  // Other episodes of the same problem, by run.
  function alike(row) {
    const found = new Map();
    for (let other = 0; other < columns.run.length; other++) {
      if (other === row || columns.problem[other] !== columns.problem[row]) continue;
      const run = columns.run[other];
      if (!found.has(run)) found.set(run, []);
      found.get(run).push(other);
    }
    return found;
  }

  // What the chosen run has of this problem: the chosen episode, else the one that is most like it.
  function besideOf(others) {
    const { beside } = state;
    let found = beside === null ? undefined : others.get(beside.run);
    if (found === undefined || beside.row === undefined) return found?.[0];
    if (found.includes(beside.row)) return beside.row;
    for (const name of ["round", "step", "sample"]) {
      const same = found.filter((other) => columns[name][other] === columns[name][beside.row]);
      if (same.length) found = same;
    }
    return found[0];
  }

  function inRun(row) {
    const parts = [index.rounds[columns.round[row]], columns.step[row] >= 0 ? "step " + columns.step[row] : "", "sample " + columns.sample[row]];
    return parts.filter(Boolean).join(", ");
  }

  const where = (row) => `${index.runs[columns.run[row]]}, ${inRun(row)}`;

  function bar(row, others, beside, first) {
    const runs = [...others].map(([run, found]) => make("option", { value: run }, plain(`${index.runs[run]}: ${plural(found.length, "episode")}`)));
    const compare = make("select", { id: "beside" }, make("option", { value: "" }, runs.length ? "nothing" : "no other episode of this problem"), ...runs);
    compare.value = beside === undefined ? "" : columns.run[beside];
    compare.disabled = !runs.length;
    compare.onchange = () => {
      state.beside = compare.value === "" ? null : { run: Number(compare.value), row: state.beside?.row };
      open(row).then(() => $("beside").focus());
    };
    const shading = make("select", { id: "shading" }, ...[["none", "none"], ["surprise", "log-probability"], ["mask", "what was trained"]].map(([value, text]) => make("option", { value }, text)));
    shading.value = state.shading;
    shading.onchange = () => shade(shading.value).then(() => $("shading").focus());
    return make(
      "div",
      { className: "bar" },
      make("button", { type: "button", className: "back", onclick: back }, "← List"),
      make("label", {}, "Beside", compare),
      beside === undefined ? null : make("label", {}, "Episode", samples(row, others.get(columns.run[beside]), beside)),
      make("label", {}, "Shading", shading),
      legend(first),
    );
  }

  // Which of a run's episodes of this problem stands beside.
  function samples(row, found, beside) {
    const options = found.map((other) => make("option", { value: other }, plain(`${inRun(other)}: ${VERDICT[columns.correct[other]][0]}, ${plural(columns.tokens[other], "token")}`)));
    const select = make("select", { id: "besideEpisode" }, ...options);
    select.value = beside;
    select.onchange = () => {
      state.beside = { run: columns.run[beside], row: Number(select.value) };
      open(row).then(() => $("besideEpisode").focus());
    };
    return select;
  }

  function legend(data) {
    const missing = (key) => data.turns.every((turn) => turn[key] === undefined);
    if (state.shading === "none") return null;
    if (state.shading === "mask") {
      if (missing("trained")) return make("span", { className: "legend" }, "not known of this episode");
      return make("span", { className: "legend" }, make("span", { className: "trained" }, "trained"), make("span", { className: "closing" }, "added by the controller"));
    }
    if (missing("surprise")) return make("span", { className: "legend" }, "no log-probabilities were kept of this episode");
    const shades = Array.from({ length: SHADES }, (_, shade) => make("span", { className: "token shade-" + shade, "aria-hidden": "true" }, "\u2003"));
    return make("span", { className: "legend" }, "likely", ...shades, "surprising");
  }

  function problem(row, first) {
    const [id, question, answer] = index.problems[columns.problem[row]];
    return make(
      "section",
      { className: "problem" },
      make("h3", {}, plain(id)),
      long("div", first.question ?? question, "question"),
      make("p", { className: "gold" }, "Gold answer: ", make("bdi", {}, plain(first.answer ?? answer))),
    );
  }

  function side(row, data, lanes) {
    const rewards = Object.entries(data.rewards ?? {});
    const outcome = index.outcomes[columns.outcome[row]].replace("_", " ");
    return make(
      "section",
      { className: "side", "aria-label": plain(where(row)) },
      make("p", { className: "heading" }, verdict(row), make("strong", {}, plain(where(row))), make("span", {}, plain(` ${outcome} · ${plural(columns.tokens[row], "token")} · ${plural(columns.turns[row], "turn")}`))),
      data.error ? make("p", { className: "error" }, "Not rewarded: " + plain(data.error)) : null,
      turns(data.turns, lanes),
      rewards.length ? rewardTable(rewards) : null,
    );
  }

  // With two roles that alternate, each has a lane, and a turn stands beside the one that it answers.
  function turns(list, lanes) {
    const roles = [...new Set(list.map((turn) => turn.role))];
    const two = lanes && roles.length === 2;
    const box = make("ol", { className: two ? "turns lanes" : "turns" });
    let line = 0, last = 2;
    list.forEach((turn, place) => {
      const lane = two ? roles.indexOf(turn.role) + 1 : 1;
      if (lane <= last) line++;
      last = lane;
      const element = card(turn, place);
      if (two) {
        element.style.gridColumn = String(lane);
        element.style.gridRow = String(line);
      }
      box.append(element);
    });
    return box;
  }

  function card(turn, place) {
    const facts = [
      plural(turn.tokens ?? 0, "token"),
      turn.cut ? "cut at its cap" : "",
      turn.well_formed ? "" : "not well formed",
      turn.trained === true ? "trained" : turn.trained === false ? "not trained" : "",
      turn.prompt ? `read ${number(turn.prompt)}${turn.cached === undefined ? "" : `, ${number(turn.cached)} from cache`}` : "",
    ];
    return make(
      "li",
      { className: "turn " + roleClass(turn.role) },
      make("p", { className: "who" }, make("strong", {}, plain(index.roles[turn.role])), make("span", {}, `${place + 1} · ${facts.filter(Boolean).join(" · ")}`)),
      body(turn),
    );
  }

  function body(turn) {
    if (state.shading === "surprise" && turn.surprise) {
      return turn.pieces ? shaded(turn) : make("div", {}, strip(turn.surprise), long("div", turn.text, "text"));
    }
    if (state.shading === "mask") {
      const end = turn.text.length - (turn.closing ?? 0);
      const box = long("div", turn.text.slice(0, end), turn.trained === false ? "text untrained" : turn.trained ? "text trained" : "text");
      if (turn.closing) box.append(make("span", { className: "closing", title: "added by the controller, never trained" }, plain(turn.text.slice(end))));
      return box;
    }
    return long("div", turn.text, "text");
  }

  // Text of any length; what is beyond the first characters waits behind a button.
  function long(tag, text, className) {
    const box = make(tag, { className, dir: "auto" });
    let at = 0, much = SHOWN;
    const button = make("button", { type: "button", className: "more" });
    const show = () => {
      let end = Math.min(at + much, text.length);
      if (text.length - end < much / 10) end = text.length;
      // Not between the halves of a surrogate pair.
      if (/[\ud800-\udbff]/.test(text[end - 1] ?? "")) end = Math.min(end + 1, text.length);
      button.before(plain(text.slice(at, end)));
      at = end;
      much *= 4;
      if (at === text.length) button.remove();
      else button.textContent = `Show more: ${number(text.length - at)} characters are left`;
    };
    button.onclick = show;
    box.append(button);
    show();
    return box;
  }

  // 0 for what was certain to 5 for what was not: probabilities above 0.9, 0.7, 0.45, 0.2, 0.05, and below.
  const LIMITS = [1, 4, 8, 16, 30];
  const shadeOf = (tenths) => LIMITS.filter((limit) => tenths > limit).length;

  const exactly = (tenths) => `log p = ${(-tenths / 10).toFixed(1)}, p = ${Math.exp(-tenths / 10).toFixed(2)}`;
  const TOKENS = { tabindex: "0", role: "group", "aria-label": "tokens: left and right go from one to the next" };

  function shaded(turn) {
    const box = make("div", { className: "text tokens", dir: "auto", ...TOKENS });
    const button = make("button", { type: "button", className: "more" });
    let token = 0, at = 0;
    const show = () => {
      const part = document.createDocumentFragment();
      const end = Math.min(token + 2000, turn.pieces.length);
      for (; token < end; token++) {
        const length = turn.pieces[token];
        if (!length) continue;
        const tenths = turn.surprise.charCodeAt(token);
        part.append(make("span", { className: "token shade-" + shadeOf(tenths), title: exactly(tenths) }, plain(turn.text.slice(at, at + length))));
        at += length;
      }
      button.before(part);
      if (token < turn.pieces.length) {
        button.textContent = `Show more: ${number(turn.pieces.length - token)} tokens are left`;
        return;
      }
      button.remove();
      if (at < turn.text.length) box.append(make("span", { className: "closing", title: "added by the controller" }, plain(turn.text.slice(at))));
    };
    button.onclick = show;
    box.append(button);
    show();
    return box;
  }

  // Where no tokenizer told which token spells what: a bar for each token.
  function strip(surprise) {
    const box = make("div", { className: "strip tokens", ...TOKENS });
    for (const char of surprise.slice(0, BARS)) box.append(make("i", { className: "shade-" + shadeOf(char.charCodeAt(0)), title: exactly(char.charCodeAt(0)) }));
    if (surprise.length > BARS) box.append(`and ${plural(surprise.length - BARS, "token")} without a bar`);
    return box;
  }

  // What a token's colour stands for, for those who cannot hover over it.
  function tokenLine() {
    return make("p", { className: "exact", id: "exact" }, "Tap a token, or go through them with left and right.");
  }

  function choose(token) {
    if (!token?.title || !$("exact")) return;
    for (const before of $("shown").querySelectorAll(".chosen")) before.classList.remove("chosen");
    token.classList.add("chosen");
    token.scrollIntoView({ block: "nearest" });
    $("exact").textContent = [token.textContent.trim(), token.title].filter(Boolean).join(": ");
  }

  function nextToken(box, by) {
    const now = box.querySelector(".chosen");
    if (now === null) choose(box.firstElementChild);
    else choose(by > 0 ? now.nextElementSibling : now.previousElementSibling);
  }

  function rewardTable(rewards) {
    const rows = rewards.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, plain(name)), make("td", {}, Number(value).toFixed(3))));
    return make("table", { className: "rewards" }, make("caption", {}, "Reward"), make("tbody", {}, ...rows));
  }

  function back() {
    $("viewer").classList.remove("reading");
    $("list").focus();
  }

  // ---- keys -------------------------------------------------------------------------------------------------------

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const writing = event.target.closest?.("input, select, textarea");
    if (event.key === "Escape") return back();
    if (writing) {
      if (event.key === "Enter" && event.target.id === "text") step(0);
      return;
    }
    const inList = event.target === $("list");
    const tokens = event.target.closest?.(".tokens");
    const keys = {
      j: () => step(1),
      k: () => step(-1),
      "/": () => $("text").focus(),
      "[": () => turnPage(-1),
      "]": () => turnPage(1),
      s: () => shade(SHADINGS[(SHADINGS.indexOf(state.shading) + 1) % SHADINGS.length]),
      c: () => $("beside")?.focus(),
    };
    if (inList) {
      Object.assign(keys, { ArrowDown: keys.j, ArrowUp: keys.k, ArrowRight: keys["]"], ArrowLeft: keys["["], Enter: enter });
    }
    if (tokens) Object.assign(keys, { ArrowRight: () => nextToken(tokens, 1), ArrowLeft: () => nextToken(tokens, -1) });
    if (!Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  }

  // ---- start ------------------------------------------------------------------------------------------------------

  async function start() {
    index = await unpack($("index").textContent);
    columns = index.columns;
    haystacks = index.problems.map((parts) => parts.join("\n").toLowerCase());
    $("viewer").hidden = false;
    if (!columns.run.length) {
      $("viewer").replaceChildren(make("p", { className: "empty" }, "These runs kept no episodes."));
      return;
    }
    offerAll();
    let waiting = 0;
    $("text").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(apply, 60);
    });
    for (const id of [...CHOICES, "correct", "order", "deep"]) $(id).addEventListener("change", apply);
    $("filters").addEventListener("reset", () => setTimeout(apply));
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    $("previous").onclick = () => turnPage(-1);
    $("next").onclick = () => turnPage(1);
    document.addEventListener("keydown", onKey);
    $("shown").addEventListener("click", (event) => choose(event.target.closest(".tokens [title]")));
    apply();
    document.documentElement.dataset.ready = "yes";
    if (!NARROW.matches) await open(state.rows[0]);
  }

  start();
})();
