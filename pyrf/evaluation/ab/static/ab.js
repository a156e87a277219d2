// Shows a rater one trial after another, and sends the answers. Which method a clip is of is not known here.

const KEYS = { ArrowLeft: "a", ArrowRight: "b", ArrowDown: "same" };
const base = location.pathname.replace(/\/$/, "");
const clips = ["a", "b"].map((side) => document.getElementById(side));
const element = (id) => document.getElementById(id);

let trial = null;
let answers = {};
let begun = 0;

function say(state, message = "") {
  document.body.dataset.state = state;
  element("message").textContent = message;
  for (const button of document.querySelectorAll("button")) button.disabled = state !== "ready";
  element("back").disabled ||= trial === null || (trial.number === 0 && !answered());
}

const answered = () => Object.keys(answers).length;

async function ask(path, options) {
  const reply = await fetch(base + path, options);
  const content = await reply.json();
  if (!reply.ok) throw new Error(content.error);
  return content;
}

// Runs what may fail, and says what went wrong.
async function attempt(work) {
  try {
    await work();
  } catch (error) {
    say("failed", `${error.message}. Load the page again to go on where you were.`);
  }
}

function ready(video) {
  return new Promise((done, fail) => {
    video.addEventListener("canplay", done, { once: true });
    video.addEventListener("error", () => fail(new Error("a clip cannot be played")), { once: true });
  });
}

async function show(number) {
  say("loading");
  answers = {};
  trial = await ask(number === undefined ? "/trial" : `/trial?number=${number}`);
  element("progress").value = trial.number / trial.of;
  element("count").textContent = `${Math.min(trial.number + 1, trial.of)} of ${trial.of}`;
  if (!trial.questions.length) {
    for (const video of clips) video.removeAttribute("src");
    say("done", "You are done. Thank you.");
    return;
  }
  const loaded = clips.map(ready);
  for (const video of clips) video.src = `${base}/clip/${trial.number}/${video.id}`;
  await Promise.all(loaded);
  restart();
  begun = performance.now();
  question();
}

function question() {
  element("question").textContent = trial.questions[answered()].text;
  say("ready");
}

function restart() {
  for (const video of clips) {
    video.currentTime = 0;
    video.play().catch(() => {}); // where a browser refuses, its first frame stays
  }
}

async function choose(choice) {
  answers[trial.questions[answered()].name] = choice;
  if (answered() < trial.questions.length) return question();
  say("loading");
  const seconds = (performance.now() - begun) / 1000;
  const body = JSON.stringify({ trial: trial.number, answers, seconds });
  await ask("/votes", { method: "POST", body });
  return show();
}

function back() {
  const last = trial.questions[answered() - 1];
  if (last === undefined) return show(trial.number - 1);
  delete answers[last.name];
  return question();
}

function press(event) {
  if (document.body.dataset.state !== "ready" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.repeat) return; // a key that is held down is one answer
  if (event.key in KEYS) attempt(() => choose(KEYS[event.key]));
  else if (event.key === "Backspace" && !element("back").disabled) attempt(back);
  else if (event.key === " ") restart();
  else return;
  event.preventDefault();
}

for (const button of document.querySelectorAll("[data-choice]")) {
  button.addEventListener("click", () => attempt(() => choose(button.dataset.choice)));
}
element("back").addEventListener("click", () => attempt(back));
element("again").addEventListener("click", restart);
document.addEventListener("keydown", press);
attempt(() => show());
