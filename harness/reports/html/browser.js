// The browser of samples. Everything that a model wrote becomes text nodes, never markup.
"use strict";
(() => {
  const SCORED = 1, GOOD = 2, FIRST_KIND = 2, ROW = 48, SPARE = 8;
  const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/u;
  const $ = (id) => document.getElementById(id);
  const make = (tag, name = "", ...children) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.append(...children);
    return element;
  };

  // Text with what cannot be seen, or steers what is seen, as visible escapes, and what is searched for marked.
  const escaped = (character) => {
    const short = { "\n": "\\n", "\t": "\\t", "\r": "\\r" }[character];
    const code = character.codePointAt(0), hex = code.toString(16);
    return short || (code < 0x100 ? `\\x${hex.padStart(2, "0")}` : code < 0x10000 ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`);
  };
  const plain = (text) => [...String(text)].map((c) => (UNSEEN.test(c) ? escaped(c) : c)).join("");
  const put = (element, text, marked = null) => {
    let run = "";
    const flush = () => {
      if (!run) return;
      let from = 0;
      for (const match of marked ? run.matchAll(marked) : []) {
        element.append(run.slice(from, match.index), make("mark", "", match[0]));
        from = match.index + match[0].length;
      }
      element.append(run.slice(from));
      run = "";
    };
    if (!UNSEEN.test(text.replace(/[\n\t]/g, ""))) {
      run = text;
    } else {
      for (const c of text) {
        if (c !== "\n" && c !== "\t" && UNSEEN.test(c)) {
          flush();
          element.append(make("span", "escaped", escaped(c)));
        } else run += c;
      }
    }
    flush();
    return element;
  };

  // Data: deflated JSON in base64, unpacked when it is needed.
  const unpack = async (element) => {
    const coded = atob(element.textContent), bytes = new Uint8Array(coded.length);
    for (let i = 0; i < coded.length; i++) bytes[i] = coded.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  };
  const sections = [...document.querySelectorAll("script[data-section]:not([data-first])")].map((element) => ({
    element,
    chunks: [...document.querySelectorAll(`script[data-section="${element.dataset.section}"][data-first]`)].map((chunk) => ({
      element: chunk, first: Number(chunk.dataset.first), examples: null, searchable: null,
    })),
    index: null,
  }));
  const indexOf = (section) => (section.index ??= unpack(section.element));
  const textsOf = (chunk) => (chunk.examples ??= unpack(chunk.element));
  const chunkOf = (section, example) => section.chunks.findLast((chunk) => chunk.first <= example);
  const searchableOf = async (chunk, ids) => {
    if (!chunk.searchable) {
      chunk.searchable = (await textsOf(chunk)).map((example, place) => [
        ids[chunk.first + place], example.gold, ...example.prompts, ...example.compared,
        ...example.runs.flatMap((run) => [run.output, run.error, ...run.judged.flatMap((said) => said[2].map((reply) => reply[1]))]),
      ].filter(Boolean).join("\0").toLowerCase());
    }
    return chunk.searchable;
  };

  const state = { place: -1, section: null, index: null, run: 0, kinds: new Set(), found: null, shown: [], cursor: -1, turn: 0 };

  // Filters.
  const matches = (example) => {
    const { index, run } = state, flags = index.runs[run].flags[example];
    if (state.found && !state.found.has(example)) return false;
    const group = Number($("group").value);
    if (group >= 0 && index.group[example] !== group) return false;
    if (state.mask && !(flags & state.mask)) return false;
    const [flip, other] = state.flip;
    if (!flip) return true;
    const against = index.runs[other].flags[example];
    if (!(flags & SCORED) || !(against & SCORED)) return false;
    const now = flags & GOOD, before = against & GOOD;
    return flip === "gained" ? now && !before : flip === "lost" ? !now && before : now !== before;
  };
  const filter = (wanted = null) => {
    const { index } = state;
    state.mask = [...state.kinds].reduce((mask, kind) => mask | (1 << (kind + FIRST_KIND)), 0);
    const [flip, other] = $("flip").value.split(" ");
    state.flip = [flip, Number(other)];
    state.shown = [];
    for (let i = 0; i < index.ids.length; i++) if (matches(i)) state.shown.push(i);
    const all = index.ids.length.toLocaleString("en"), some = state.shown.length.toLocaleString("en");
    $("count").textContent = state.shown.length === index.ids.length ? `${all} samples` : `${some} of ${all} samples`;
    $("rows").style.height = `${state.shown.length * ROW}px`;
    $("list").scrollTop = 0;
    const place = wanted === null ? 0 : state.shown.indexOf(wanted);
    select(state.shown.length ? Math.max(0, place) : -1);
  };
  const search = async () => {
    const turn = ++state.turn, query = $("query").value.trim().toLowerCase();
    state.marked = query ? new RegExp(query.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "giu") : null;
    const { section, index } = state, found = new Set();
    if (!query) {
      state.found = null;
      return filter();
    }
    for (const [place, chunk] of section.chunks.entries()) {
      if (!chunk.searchable) $("count").textContent = `Searching… ${Math.round((100 * place) / section.chunks.length)}%`;
      const texts = await searchableOf(chunk, index.ids);
      if (turn !== state.turn) return;
      texts.forEach((text, at) => text.includes(query) && found.add(chunk.first + at));
    }
    state.found = found;
    filter();
  };

  // The list: only the rows in sight are elements.
  const verdict = (flags, index) => {
    const has = (name) => flags & (1 << (index.kinds.indexOf(name) + FIRST_KIND)) && index.kinds.includes(name);
    if (has("failed")) return ["!", "unknown", "failed"];
    if (has("unparsed") || has("unreadable")) return ["?", "unknown", "unread"];
    if (has("tied")) return ["=", "unknown", "tied"];
    if (!(flags & SCORED)) return ["–", "unknown", "not scored"];
    return flags & GOOD ? ["✓", "good", "good"] : ["✗", "bad", "not good"];
  };
  const row = (at) => {
    const { index } = state, example = state.shown[at];
    const marks = make("span", "marks"), said = [];
    for (const run of index.runs) {
      const [sign, name, word] = verdict(run.flags[example], index);
      marks.append(make("span", name, sign));
      said.push(`${run.label} ${word}`);
    }
    marks.setAttribute("aria-hidden", "true");
    const group = index.groups[index.group[example]];
    const element = make("div", "row", marks, make("bdi", "", plain(index.ids[example])), make("bdi", "under", group === undefined ? "" : plain(group)));
    element.append(make("span", "said", plain(said.join(", "))));
    element.id = `row-${at}`;
    element.setAttribute("role", "option");
    element.setAttribute("aria-selected", at === state.cursor);
    element.setAttribute("aria-setsize", state.shown.length);
    element.setAttribute("aria-posinset", at + 1);
    element.style.top = `${at * ROW}px`;
    element.addEventListener("click", () => select(at, true));
    return element;
  };
  const draw = () => {
    const list = $("list"), first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
    const last = Math.min(state.shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE);
    $("rows").replaceChildren(...Array.from({ length: Math.max(0, last - first) }, (_, i) => row(first + i)));
    if (state.cursor >= first && state.cursor < last) list.setAttribute("aria-activedescendant", `row-${state.cursor}`);
    else list.removeAttribute("aria-activedescendant");
  };
  const address = (example) => {
    try {
      return `#sample=${state.place}/${encodeURIComponent(state.index.ids[example])}`;
    } catch { // a lone surrogate
      return `#sample=${state.place}//${example}`;
    }
  };
  const select = (at, asked = false) => {
    state.cursor = at;
    const list = $("list");
    if (at >= 0) {
      if (at * ROW < list.scrollTop) list.scrollTop = at * ROW;
      if ((at + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (at + 1) * ROW - list.clientHeight;
    }
    draw();
    $("previous").disabled = at <= 0;
    $("next").disabled = at < 0 || at >= state.shown.length - 1;
    if (at >= 0 && asked) history.replaceState(null, "", address(state.shown[at]));
    return show(at < 0 ? null : state.shown[at]);
  };
  const step = (by) => state.shown.length && select(Math.min(state.shown.length - 1, Math.max(0, state.cursor + by)), true);

  // One sample.
  const block = (text, name = "") => (text ? put(make("pre", name), text, state.marked) : make("p", "empty", "(nothing)"));
  // An output with the words between two places marked as those that decided.
  const decided = (text, [start, end]) => {
    const words = put(make("mark", "deciding"), text.slice(start, end), state.marked);
    const element = put(make("pre"), text.slice(0, start), state.marked);
    element.append(words);
    return put(element, text.slice(end), state.marked);
  };
  const fact = (name, value) => make("span", "", `${name} `, value === null ? make("i", "empty", "none") : make("b", "", put(make("bdi"), value, state.marked)));
  const swatch = (series) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), use = document.createElementNS(svg.namespaceURI, "use");
    svg.setAttribute("class", "swatch");
    svg.setAttribute("viewBox", "-8 -8 16 16");
    svg.setAttribute("aria-hidden", "true");
    use.setAttribute("href", `#mark-${(series + Math.floor(series / 6)) % 6}`);
    use.setAttribute("class", `series-${series % 6}`);
    svg.append(use);
    return svg;
  };
  const judged = ([judge, said, replies, compared, error], example) => {
    const details = make("details", "", make("summary", "", "What the judge said"));
    for (const [question, reply] of replies) details.append(make("h4", "", plain(question)), block(reply));
    if (compared !== null && example.compared.length > 1) details.append(make("h4", "", "Compared with"), block(example.compared[compared]));
    return [put(make("p", "facts"), error ?? "", null), make("p", "facts", fact(`verdict of ${plain(judge)}:`, said)), details].filter((each) => each.textContent);
  };
  const prompt = (example, place) => [make("h4", "", example.sent[place] ? "Prompt, exactly as sent" : "Question (the prompt is not known)"), block(example.prompts[place], "prompt")];
  const column = (run, made, at, example) => {
    const { index } = state, flags = run.flags[at];
    const section = make("section", run === index.runs[state.run] ? "focus" : "", make("h4", "", swatch(run.series), make("bdi", "", plain(run.label))));
    const chips = make("p", "facts");
    index.kinds.forEach((kind, bit) => {
      if (flags & (1 << (bit + FIRST_KIND))) chips.append(make("span", `chip ${kind === "right" || kind === "safe" || kind === "won" ? "good" : kind === "wrong" || kind === "unsafe" || kind === "lost" ? "bad" : "unknown"}`, plain(kind)));
    });
    if (made.tokens !== null) chips.append(`${made.tokens.toLocaleString("en")} tokens`);
    section.append(chips);
    if (example.prompts.length > 1) section.append(...prompt(example, made.prompt), make("h4", "", "Output"));
    const places = made.answers.map((each) => each.slice(3)).find((each) => each.length);
    if (made.likelihoods) section.append(make("p", "facts", fact("log-likelihood:", "")), block(made.likelihoods));
    section.append(made.error !== null ? make("p", "facts", fact("error:", made.error)) : places ? decided(made.output, places) : block(made.output));
    for (const [parser, answer, rule] of made.answers) section.append(make("p", "facts", fact(`${plain(parser)}:`, answer), rule ? ` · ${plain(rule)}` : ""));
    for (const said of made.judged) section.append(...judged(said, example));
    return section;
  };
  const show = async (at) => {
    const { section, index } = state;
    state.example = at;
    if (at === null) {
      $("sample-title").textContent = "No sample fits";
      $("about").replaceChildren();
      $("texts").replaceChildren(make("p", "empty", "Take away a filter to see samples again."));
      $("link").hidden = true;
      return;
    }
    const chunk = chunkOf(section, at), example = (await textsOf(chunk))[at - chunk.first];
    if (state.section !== section || state.example !== at) return;
    $("sample-title").replaceChildren(put(make("bdi"), plain(index.ids[at]), state.marked));
    $("link").hidden = false;
    $("link").href = address(at);
    const group = index.groups[index.group[at]];
    $("about").replaceChildren(...(group === undefined ? [] : [fact("group", group)]), ...(example.gold === null ? [] : [fact("gold answer", example.gold)]));
    const parts = example.prompts.length === 1 ? prompt(example, 0) : [];
    if (example.compared.length === 1) parts.push(make("details", "", make("summary", "", "The response it was compared with"), block(example.compared[0])));
    parts.push(make("div", "side", ...index.runs.map((run, place) => column(run, example.runs[place], at, example))));
    $("texts").replaceChildren(...parts);
    for (const element of $("texts").querySelectorAll("pre.prompt")) element.tabIndex = 0;
  };

  // Controls.
  const options = (select, entries) => select.replaceChildren(...entries.map(([value, text]) => new Option(plain(text), value)));
  const fill = () => {
    const { index, run } = state, { flags } = index.runs[run];
    options($("run"), index.runs.map((each, place) => [place, each.label]));
    $("run").value = run;
    $("run").parentElement.hidden = index.runs.length < 2;
    $("group").parentElement.hidden = !index.groups.length;
    options($("group"), [[-1, "all"], ...index.groups.map((group, place) => [place, group])]);
    fillRun(flags);
  };
  const fillRun = (flags) => {
    const { index, run } = state, chosen = [...state.kinds].map((kind) => index.kinds[kind]);
    const flips = index.runs.flatMap((other, place) => (place === run ? [] : [
      [`gained ${place}`, `good here, not with ${other.label}`], [`lost ${place}`, `good with ${other.label}, not here`], [`differ ${place}`, `flipped either way, ${other.label}`],
    ]));
    options($("flip"), [["", "all"], ...flips]);
    $("flip").parentElement.hidden = !flips.length;
    $("kinds").replaceChildren($("kinds").firstElementChild);
    state.kinds.clear();
    index.kinds.forEach((kind, place) => {
      const count = flags.reduce((sum, flag) => sum + ((flag >> (place + FIRST_KIND)) & 1), 0);
      if (!count) return;
      const box = make("input");
      box.type = "checkbox";
      box.value = place;
      if (chosen.includes(kind)) {
        box.checked = true;
        state.kinds.add(place);
      }
      box.addEventListener("change", () => {
        if (box.checked) state.kinds.add(place);
        else state.kinds.delete(place);
        filter();
      });
      $("kinds").append(make("label", "", box, `${plain(kind)} ${count.toLocaleString("en")}`));
    });
  };
  const open = async (place, wanted = null, run = null) => {
    const section = sections[place], index = await indexOf(section);
    Object.assign(state, { place, section, index, run: run ?? index.runs.length - 1, found: null, marked: null, turn: state.turn + 1 });
    state.kinds.clear();
    $("section").value = place;
    $("query").value = "";
    fill();
    filter(wanted);
  };
  const followFlips = async () => {
    const match = /^#flips=(\d+)\/(\d+)\/(\d+)\/(gained|lost)$/.exec(location.hash);
    const [place, run, other] = (match ?? []).slice(1, 4).map(Number);
    if (!match || !sections[place] || !(Math.max(run, other) < (await indexOf(sections[place])).runs.length)) return false;
    await open(place, null, run);
    $("flip").value = `${match[4]} ${other}`;
    filter();
    $("samples").scrollIntoView();
    $("samples").focus({ preventScroll: true });
    return true;
  };
  const follow = async () => {
    if (await followFlips()) return true;
    const match = /^#sample=(\d+)\/(?:\/(\d+)|(.*))$/.exec(location.hash);
    if (!match || !sections[match[1]]) return false;
    const place = Number(match[1]), { ids } = await indexOf(sections[place]);
    let example = Number(match[2]);
    if (match[3] !== undefined) {
      try {
        example = ids.indexOf(decodeURIComponent(match[3]));
      } catch {
        return false;
      }
    }
    if (!(example >= 0 && example < ids.length)) return false;
    await open(place, example);
    $("samples").scrollIntoView();
    return true;
  };
  const keys = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === $("query") && event.key === "Escape") return $("list").focus();
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const page = Math.max(1, Math.floor($("list").clientHeight / ROW) - 1), listed = event.target === $("list");
    const steps = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1, ...(listed ? { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity } : {}) };
    if (event.key === "/") $("query").focus();
    else if (event.key in steps) step(steps[event.key]);
    else return;
    event.preventDefault();
  };

  let typing = 0;
  const start = async () => {
    if (typeof DecompressionStream === "undefined") throw new Error("this browser cannot unpack them (it has no DecompressionStream)");
    $("browser").hidden = false;
    $("section").parentElement.hidden = sections.length < 2;
    $("section").addEventListener("change", (event) => open(Number(event.target.value)));
    $("run").addEventListener("change", (event) => {
      state.run = Number(event.target.value);
      fillRun(state.index.runs[state.run].flags);
      filter(state.example);
    });
    for (const id of ["group", "flip"]) $(id).addEventListener("change", () => filter());
    $("query").addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(search, 150);
    });
    $("list").addEventListener("scroll", () => requestAnimationFrame(draw));
    $("previous").addEventListener("click", () => step(-1));
    $("next").addEventListener("click", () => step(1));
    $("samples").addEventListener("keydown", keys);
    window.addEventListener("hashchange", follow);
    window.addEventListener("resize", draw);
    if (!(await follow())) await open(0);
  };
  start().catch((error) => {
    $("trouble").textContent = `The samples cannot be shown: ${plain(error.message)}.`;
    $("trouble").hidden = false;
    $("browser").hidden = true;
  });
})();
