// The control room's page. Text of the ledger becomes text nodes only: nothing here parses it as markup.

const page = document.body.dataset.page;
const csrf = document.body.dataset.csrf;
const whole = new Intl.NumberFormat("en");
const SILENT_AFTER = 5000; // ms without an event: the server is away
const ANNOUNCE_EVERY = 20000; // ms between two announcements of progress

const $ = (id) => document.getElementById(id);

/** An element with text or children. */
function make(tag, content = "", attributes = {}) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...(Array.isArray(content) ? content : [String(content)]));
  return element;
}

/** Set a text where it has changed, so that nothing is drawn or read again for nothing. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function show(element, visible) {
  element.hidden = !visible;
}

const number = (value) => (value === null || value === undefined ? "-" : whole.format(value));
const stateWords = (state) => state.replaceAll("_", " ");
const link = (path, query) => `${path}?${new URLSearchParams(query)}`;

function utc(seconds) {
  return seconds === null ? "-" : new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ");
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "-";
  const total = Math.ceil(seconds);
  const [hours, minutes, rest] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  if (hours) return `${whole.format(hours)} h ${minutes} min`;
  return minutes ? `${minutes} min ${rest} s` : `${rest} s`;
}

/** Fill the body of a table, and keep the focus on the row that had it. */
function fill(table, rows) {
  const body = table.tBodies[0];
  const focused = body.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  body.replaceChildren(...rows);
  if (focused !== undefined) {
    [...body.querySelectorAll("[data-key]")].find((each) => each.dataset.key === focused)?.focus();
  }
}

/** Rows of a table that are made again only when what they show has changed. */
const filled = new WeakMap();
function fillOnce(table, value, rows) {
  const key = JSON.stringify(value);
  if (filled.get(table) === key) return;
  filled.set(table, key);
  fill(table, rows());
}

const cell = (content, name = "") => make("td", content, name ? { class: name } : {});
const badge = (state) => make("span", stateWords(state), { class: `state ${state.replaceAll(" ", "-")}` });

let lastSaid = { text: "", at: 0 };
/** Tell a screen reader. Progress is told now and then, what matters at once. */
function announce(text, urgent = false) {
  const now = Date.now();
  if (text === lastSaid.text || (!urgent && now - lastSaid.at < ANNOUNCE_EVERY)) return;
  lastSaid = { text, at: now };
  say($("announce"), text);
}

/* ---- The list of runs ---- */

function showRuns(told) {
  show($("empty"), !told.runs.length);
  fillOnce($("runs"), told.runs, () =>
    told.runs.map((run) => {
      const { counts } = run;
      const over = counts.done + counts.rejected + counts.not_sent + counts.unknown;
      const failed = over - counts.done;
      const name = make("a", run.name, { href: link("/run", { name: run.name }), "data-key": run.name });
      const share = run.total ? over / run.total : 0;
      const bar = make("progress", "", { max: "1", value: String(share), "aria-label": `Progress of ${run.name}` });
      return make("tr", [
        make("th", [name], { scope: "row" }),
        cell([badge(run.state)]),
        cell([`${Math.floor(share * 100)} % `, bar], "nowrap"),
        cell(number(failed), failed ? "number bad" : "number"),
        cell(number(run.total), "number"),
        cell(utc(run.created), "nowrap"),
      ]);
    }),
  );
  show($("pages"), told.pages > 1);
  say($("page-number"), `Page ${told.page} of ${told.pages}, ${number(told.total)} runs`);
  for (const [id, to] of [["newer", told.page - 1], ["older", told.page + 1]]) {
    const exists = to >= 1 && to <= told.pages;
    show($(id), exists);
    if (exists) $(id).href = link("/", { page: to });
  }
}

/* ---- One run ---- */

let current = null;

function showRun(run) {
  if (run.gone) {
    banner("gone", `${run.gone} It was deleted, or the ledger is another one.`);
    return;
  }
  banner("gone", null);
  const before = current;
  current = run;
  const { counts } = run;
  const over = counts.done + counts.rejected + counts.not_sent + counts.unknown;
  say($("state"), run.state);
  $("state").className = `state ${run.state.replaceAll(" ", "-")}`;
  const { provider, base_url: host } = run.settings;
  say($("about"), `${provider ?? "?"} at ${host ?? "?"}${run.account ? `, account ${run.account}` : ""}. Created ${utc(run.created)} UTC.`);
  for (const element of document.querySelectorAll("[data-count]")) {
    const value = counts[element.dataset.count];
    say(element, number(value));
    element.parentElement.classList.toggle("zero", !value);
  }
  const share = run.total ? over / run.total : 0;
  $("progress").value = share;
  say($("percent"), `${number(over)} of ${number(run.total)} (${Math.floor(share * 100)} %)`);
  say($("total"), number(run.total) + (run.plan_complete ? "" : " so far"));
  say($("rate"), run.rate === null ? "-" : run.rate.toFixed(run.rate < 10 ? 1 : 0));
  say($("time-left"), duration(run.time_left));
  const notes = [];
  if (run.paused_until) notes.push(`The provider asked for a pause until ${utc(run.paused_until)} UTC.`);
  if (!run.plan_complete) notes.push("The plan is not complete.");
  if (run.kept) notes.push(`${number(run.kept)} unknown: nothing can settle them, and a resume leaves them alone.`);
  say($("note"), notes.join(" "));
  show($("note"), notes.length > 0);
  $("stop").disabled = !run.can_stop;
  say($("stop"), run.state === "stopped" || run.state === "stopping" ? `Run is ${run.state}` : "Stop this run");
  show($("resume"), Boolean(run.resume));
  if (run.resume) say($("resume-line"), run.resume);
  if (run.state === "running" && before && before.state !== "running") say($("stopped"), "");
  show($("stopped"), $("stopped").textContent !== "");
  showWorkers(run);
  describeStop();
  const words = `${run.state}: ${number(over)} of ${number(run.total)}, ${number(over - counts.done)} failed`;
  announce(words, before !== null && before.state !== run.state);
  document.title = `${Math.floor(share * 100)} % ${run.state}: ${run.name}`;
}

function showWorkers(run) {
  const { workers } = run;
  show($("workers-region"), workers.length > 0);
  const more = run.workers_more ? `, the first ${workers.length} are shown` : "";
  const count = workers.length + run.workers_more;
  say($("workers-note"), count ? `${number(count)} ${count === 1 ? "process holds" : "processes hold"} this run${more}.` : "No process holds this run.");
  const body = $("workers").tBodies[0];
  fillOnce($("workers"), workers.map(({ heartbeat, ...rest }) => rest), () =>
    workers.map((worker) => {
      const chunks = worker.chunks.length > 3 ? `${worker.chunks.slice(0, 3).join(", ")}, ...` : worker.chunks.join(", ");
      return make("tr", [
        make("th", worker.pid, { scope: "row" }),
        cell(worker.host),
        cell(chunks),
        cell(`${number(worker.start)} to ${number(worker.end - 1)}`, "nowrap"),
        cell(utc(worker.since), "nowrap"),
        cell("", "number nowrap"),
      ]);
    }),
  );
  workers.forEach((worker, index) => {
    const beat = body.rows[index].lastElementChild;
    const late = worker.heartbeat > run.lease / 3;
    say(beat, worker.heartbeat < 2 ? "now" : `${Math.round(worker.heartbeat)} s ago${late ? " (late)" : ""}`);
    beat.classList.toggle("bad", late);
  });
}

/** Draw the plots that the server has drawn. They are parsed as XML, and not as HTML. */
function showPlots(told) {
  const figures = told.plots.map((svg) => {
    const drawn = new DOMParser().parseFromString(svg, "image/svg+xml").documentElement;
    return drawn.localName === "svg" ? make("figure", [document.importNode(drawn, true)]) : null;
  });
  if (figures.length) $("plots").replaceChildren(...figures.filter(Boolean));
}

/* ---- Failures ---- */

let chosen = null;

function showFailures(told) {
  show($("kinds-region"), told.kinds.length > 0);
  show($("search"), told.read > 0);
  const beyond = told.total > told.read ? ` The kinds are those of the first ${number(told.read)}.` : "";
  const more = told.more ? ` ${number(told.more)} rarer kinds are not shown.` : "";
  say($("failures-note"), told.total ? `${number(told.total)} ${told.total === 1 ? "target is" : "targets are"} not done.${beyond}${more}` : "None yet.");
  fillOnce($("kinds"), told.kinds, () =>
    told.kinds.map((each) => {
      const choose = make("button", each.kind || "(no reason stored)", {
        type: "button", class: "as-link", title: each.example, "data-key": `${each.state} ${each.kind}`,
      });
      choose.addEventListener("click", () => search({ state: each.state, kind: each.kind }));
      return make("tr", [cell(number(each.count), "number"), cell([badge(each.state)]), cell(each.code ?? ""), cell([choose])]);
    }),
  );
}

async function search(kind) {
  chosen = kind;
  show($("clear"), kind !== null);
  const words = $("words").value;
  const response = await fetch(link("/failures", { run: current.name, words, ...(kind ?? {}) }));
  if (!response.ok) {
    say($("found-note"), "The search failed: the ledger or the server is away.");
    return;
  }
  const told = await response.json();
  const listed = told.failures.length < told.found ? `, the first ${told.failures.length} are listed` : "";
  say($("found-note"), `${number(told.found)} found${kind ? ` of the kind "${kind.kind}"` : ""}${listed}.`);
  show($("found-region"), told.failures.length > 0);
  fill($("found"), told.failures.map((each) =>
    make("tr", [
      make("th", [make("a", each.target ?? `index ${each.index}`, { href: link("/target", { run: current.name, index: each.index }) })], { scope: "row" }),
      cell([badge(each.state)]),
      cell(each.summary),
      cell(utc(each.at), "nowrap"),
    ])));
}

/* ---- The stop ---- */

/** Name the run and its counts in the question, also while it is open. */
function describeStop() {
  if (!current || !$("confirm").open) return;
  const { counts, name, total } = current;
  say($("confirm-text"), `Run "${name}": ${number(counts.done)} of ${number(total)} done, ${number(counts.sending)} sending, ${number(counts.planned)} planned.`);
}

async function stop() {
  const button = $("confirm-stop");
  button.disabled = true;
  show($("confirm-error"), false);
  try {
    const response = await fetch("/stop", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
      body: JSON.stringify({ run: current.name, number: current.number }),
    });
    const isJson = (response.headers.get("Content-Type") ?? "").startsWith("application/json");
    const told = isJson ? await response.json() : { error: `The server refused (${response.status}): load the page again.` };
    if (!response.ok || told.error) throw new Error(told.error);
    $("confirm").close();
    confirmStop(told);
  } catch (error) {
    const why = error instanceof TypeError ? "The server does not answer." : error.message;
    say($("confirm-error"), `The run was not stopped. ${why}`);
    show($("confirm-error"), true);
  } finally {
    button.disabled = false;
  }
}

function confirmStop(told) {
  const notice = $("stopped");
  show(notice, true);
  say(notice, told.nothing ?? told.accepted);
  notice.tabIndex = -1;
  notice.focus();
  if (told.confirmed) setTimeout(() => say(notice, told.confirmed), told.wait * 1000);
}

function prepareRun() {
  $("stop").addEventListener("click", () => {
    show($("confirm-error"), false);
    $("confirm").showModal();
    describeStop();
    $("cancel").focus(); // Enter alone stops nothing
  });
  $("cancel").addEventListener("click", () => $("confirm").close());
  $("confirm-stop").addEventListener("click", stop);
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    search(chosen);
  });
  $("clear").addEventListener("click", () => {
    $("words").focus();
    search(null);
  });
  $("target").addEventListener("submit", (event) => {
    event.preventDefault();
    location.assign(link("/target", { run: current.name, id: $("id").value }));
  });
  $("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText($("resume-line").textContent);
      say($("copy"), "Copied");
    } catch {
      getSelection().selectAllChildren($("resume-line"));
      say($("copy"), "Press Ctrl-C to copy");
    }
    setTimeout(() => say($("copy"), "Copy the line"), 3000);
  });
}

/* ---- One target ---- */

function showStory(told) {
  $("back").href = link("/run", { name: told.run });
  $("stories").replaceChildren(...told.targets.map(tellTarget));
}

function tellTarget(target) {
  const facts = [
    ["Id", target.target ?? "-"],
    ["Index in the plan", number(target.index)],
    ["Outcome", target.is_final ? "unknown, and nothing can settle it" : stateWords(target.state)],
    ["Why", target.summary || "-"],
    ["Code", target.code ?? "-"],
    ["Attempts", number(target.attempts)],
    ["Request id", target.request_id ?? "-"],
    ...Object.entries(target.command ?? { command: "this release cannot read it" }).map(([name, value]) => [`Command: ${name}`, value]),
  ];
  const list = make("dl", facts.map(([name, value]) => make("div", [make("dt", name), make("dd", value)])), { class: "facts wide" });
  const events = [
    ...target.claims.flatMap((each) => [
      { at: each.since, what: "claimed: a request may leave from now on", each },
      ...(each.claimed_at > each.since + 0.5 ? [{ at: each.claimed_at, what: "claimed again by the same process", each }] : []),
    ]),
    ...target.outcomes.map((each) => ({
      at: each.at, each,
      what: `${stateWords(each.state)}${each.is_final ? " for good" : ""} after ${each.attempts} attempt${each.attempts === 1 ? "" : "s"}${each.summary ? `: ${each.summary}` : ""}`,
    })),
  ].sort((one, other) => one.at - other.at);
  const rows = events.map(({ at, what, each }) =>
    make("tr", [cell(`${utc(at)}.${String(Math.floor((at % 1) * 1000)).padStart(3, "0")}`, "nowrap"), cell(each.send_no || "-", "number"), cell(what), cell(each.request_id ?? "-", "code")]));
  const head = make("thead", [make("tr", ["Time (UTC)", "Claim", "What happened", "Request id"].map((name) => make("th", name, { scope: "col" })))]);
  const table = make("table", [make("caption", "What the ledger stores", { class: "visually-hidden" }), head, make("tbody", rows)]);
  const story = rows.length
    ? make("div", [table], { class: "scroll", role: "region", "aria-label": "What the ledger stores", tabindex: "0" })
    : make("p", "Nothing was sent yet.");
  return make("section", [list, story], { "aria-label": `Target ${target.target ?? target.index}` });
}

/* ---- The stream ---- */

const banners = new Map();
function banner(kind, text) {
  if (text === null) banners.delete(kind);
  else banners.set(kind, text);
  const shown = [...banners.values()].join(" ");
  say($("alert"), shown);
  show($("alert"), shown !== "");
}

/** Say how fresh the page is. */
function setLink(state, text) {
  $("link").dataset.state = state;
  say($("link-text"), text);
}

const handlers = {
  runs: showRuns,
  run: showRun,
  plots: showPlots,
  failures: showFailures,
  story: showStory,
  tick: () => {},
  ledger: ({ away }) => {
    const wasAway = banners.has("ledger");
    banner("ledger", away === null ? null : `The ledger is away, so these numbers are old. ${away} The page goes on by itself once it is back.`);
    if (wasAway && away === null) announce("The ledger is back.", true);
    live = away === null;
  },
};

let live = null;
let lastEvent = 0;
let stream = null;

function connect() {
  const query = page === "run" ? { run: new URLSearchParams(location.search).get("name") } : { page: new URLSearchParams(location.search).get("page") ?? 1 };
  stream = new EventSource(link("/events", query));
  for (const [name, handle] of Object.entries(handlers)) {
    stream.addEventListener(name, (event) => {
      if (banners.has("server")) announce("The server is back.", true);
      lastEvent = Date.now();
      banner("server", null);
      handle(JSON.parse(event.data));
      if (name !== "tick") setLink(live === false ? "away" : "live", live === false ? "the ledger is away" : `live, ${utc(Date.now() / 1000).slice(11)} UTC`);
    });
  }
  stream.addEventListener("error", () => void lost());
}

let looking = false;
async function lost() {
  if (looking) return;
  looking = true;
  try {
    const response = await fetch("/alive").catch(() => null);
    if (response?.status === 403) {
      stream.close();
      banner("server", "The server was started again: open the link that 'dispatchkit web' printed.");
    } else if (response === null) {
      banner("server", "The server is away, so these numbers are old. The page goes on by itself once it is back.");
    }
    setLink("away", "not connected");
    if (response?.status !== 403 && stream.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  } finally {
    looking = false;
  }
}

if (page === "run") prepareRun();
for (const [name, told] of Object.entries(JSON.parse($("data").textContent))) handlers[name]?.(told);
performance.mark("shown");
if (page === "target") {
  show($("link"), false);
} else {
  lastEvent = Date.now();
  connect();
  setInterval(() => {
    if (Date.now() - lastEvent > SILENT_AFTER) {
      setLink("away", "not connected");
      void lost();
    }
  }, 2000);
}
