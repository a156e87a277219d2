// The page: what the keys and buttons do.

import { Adapters } from "./adapters.js";
import { addressOf } from "./addresses.js";
import { createSession, modelInfo, Refusal, sessionInfo } from "./api.js";
import { Blend } from "./blend.js";
import { Change } from "./change.js";
import { Camera } from "./camera.js";
import { Chips } from "./chips.js";
import { Figures } from "./figures.js";
import { StartImage } from "./image.js";
import { linkOf, readLink } from "./link.js";
import { Models } from "./models.js";
import { Player } from "./player.js";
import { showPrompts } from "./prompts.js";
import { Recorder } from "./recorder.js";
import { Stream } from "./stream.js";
import { overWebRtc, overWebSocket } from "./transports.js";
import { countDown, offerWebRtc, showCopied, showExpanded, showModel, showNotices, showProblem, showState } from "./view.js";

const RESUMED_MS = 3_000;
const RETRY_S = 2;
const COPIED_MS = 4_000;
const SEEDS = 100_000; // that a surprise draws from: few digits, for people
const KEPT = "pyrf-session"; // in sessionStorage: a reloaded page goes on with its stream

const byId = (id) => document.getElementById(id);
const figures = new Figures();
const player = new Player(byId("canvas"), shown);
const recorder = new Recorder();
const chips = new Chips(changeLive);
const adapters = new Adapters((strengths) => connected && setAdapters(strengths));
const blend = new Blend(changeLive);
const asked = new Change();
const startImage = new StartImage();
const models = new Models(chooseModel);
let stream = null;
const camera = new Camera({
  send: (message) => stream?.send(message),
  sendFrame: (blob) => stream?.sendFrame(blob),
  useTrack: (track) => stream?.useTrack(track) ?? false,
  problem: showProblem,
});
let loads = 0; // counts what was asked of models, so that the last one counts
let offered = ""; // the prompt that the page itself wrote
let attempt = 0; // counts starts, so that one that was overtaken stops trying
let serverToken = null;
let fps = 16;
let iceServers = [];
let sentAt = new Map(); // ref of a prompt -> when it was sent
let refs = 0;
let connected = false;
let unsent = false; // the prompt was changed while nothing could carry it
let resuming = false;
let paused = false;

// Starting

// isChoice: whether somebody has chosen another model, and no link is to be followed.
async function load(isChoice = false) {
  const before = attempt;
  const current = ++loads;
  const isOvertaken = () => attempt !== before; // somebody asked for a stream meanwhile
  try {
    const model = await modelInfo(serverToken, models.chosen);
    if (current !== loads) return undefined;
    models.show(model);
    showModel(model);
    fps = player.fps = model.fps;
    iceServers = model.ice_servers;
    adapters.show(model);
    offerWebRtc(model.webrtc);
    camera.limit(model.fps, model.limits);
    startImage.offer(model.limits.max_image_bytes);
    offer(model, isChoice);
  } catch (error) {
    if (current !== loads) return undefined;
    if (error.status === 401) {
      if (serverToken) showProblem(error.message);
      return showState("locked");
    }
    if (error.code === "bad_model") {
      models.chosen = undefined;
      showProblem(error.message);
      return load(isChoice);
    }
    if (error.code === "loading") {
      showState("loading", `${Math.round(100 * error.progress)} %`);
      setTimeout(load, 1000 * error.retryAfter);
      return undefined;
    }
    return showState("ended", "the server cannot be reached");
  }
  if (isOvertaken()) return undefined;
  showState("idle");
  return resumeKept(isOvertaken);
}

// Fill in what to begin with; nothing starts before somebody asks for it.
function offer(model, isChoice) {
  chips.show(model.choices ?? {});
  const { prompt, seed } = showPrompts(model, play, (example) => {
    chips.write(example);
    byId("form").requestSubmit();
  });
  if ([offered, ""].includes(byId("prompt").value)) {
    chips.write(prompt);
    offered = prompt;
    byId("seed").value = seed ?? 0;
  }
  if (isChoice) return;
  followLink();
  byId("prompt").select();
}

function chooseModel() {
  showProblem("");
  showNotices();
  showExpanded("");
  return load(true);
}

function followLink() {
  const { prompt, seed } = readLink();
  if (prompt) chips.write(prompt.slice(0, byId("prompt").maxLength));
  if (seed !== undefined) byId("seed").value = seed;
}

function followAddress() {
  if (!isWanted() && models.choose(readLink().model)) return load(); // which follows the rest
  return followLink();
}

async function resumeKept(isOvertaken) {
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  if (!kept) return;
  const info = await sessionInfo(kept).catch(() => null);
  if (isOvertaken()) return;
  if (!info) return sessionStorage.removeItem(KEPT);
  if (models.choose(info.model)) return load(); // which comes here again
  resuming = true;
  attach({ ...info, token: kept.token, watch: kept.watch });
}

async function start() {
  const current = ++attempt;
  const isCurrent = () => current === attempt;
  leave();
  const request = { prompt: blend.prompt(), seed: byId("seed").valueAsNumber || 0, model: models.chosen };
  showState("connecting"); // at once: what is changed from here on is sent to the stream
  try {
    Object.assign(request, await startImage.fields());
  } catch (error) {
    if (!isCurrent()) return;
    showState("idle");
    return showProblem(error.message);
  }
  while (isCurrent()) {
    showState("connecting");
    figures.begin(performance.now());
    try {
      const session = await createSession(serverToken, request);
      if (!isCurrent()) return;
      resuming = false;
      showNotices(session.warnings);
      showExpanded(session.expanded);
      attach(session);
      address(byId("prompt").value.trim(), request.seed);
      return;
    } catch (error) {
      if (isCurrent()) await refused(error, isCurrent);
    }
  }
}

// Say why there is no session; return when it is time to try again, or give this attempt up.
async function refused(error, isCurrent) {
  if (error instanceof Refusal && !error.retryAfter) {
    attempt += 1;
    showState(error.status === 401 ? "locked" : "idle");
    showProblem(error.message);
    return;
  }
  if (!(error instanceof Refusal)) showState("lost");
  else if (error.code === "full") showState("full");
  else showState("full", error.message);
  await countDown(error.retryAfter ?? RETRY_S, isCurrent);
}

function attach(session) {
  const { id, token, watch } = session;
  sessionStorage.setItem(KEPT, JSON.stringify({ id, token, watch }));
  byId("watch-field").hidden = !watch;
  figures.session(session);
  asked.clear();
  player.reset();
  player.paused = paused = false;
  const webRtc = byId("transport").value === "webrtc";
  showVideo(webRtc);
  showState("connecting");
  stream = new Stream(session, webRtc ? firstWebRtc() : overWebSocket, {
    attached,
    message,
    frame: (header, blob) => player.push(header, blob),
    media: playMedia,
    lost,
    ended: over,
  });
}

// The page's address is a link to what is shown, so that a reloaded page has its prompt.
function address(prompt, seed) {
  const link = linkOf(prompt, seed, models.chosen);
  history.replaceState(null, "", link);
  return link;
}

function showVideo(webRtc) {
  byId("canvas").hidden = webRtc;
  byId("video").hidden = !webRtc;
}

// Attaches over WebRTC, and over the WebSocket from then on when no connection has ever stood: the browser,
// or the network between, may not let it.
function firstWebRtc() {
  let stood = false;
  return (session, on) => {
    const message = (reply) => {
      stood ||= reply.type === "hello";
      on.message(reply);
    };
    const close = (gone) => {
      if (!stood && !gone && stream?.session === session) {
        stream.attach = overWebSocket;
        byId("transport").value = "websocket";
        showVideo(false);
        showProblem("No video came over WebRTC. It comes over the WebSocket instead.");
      }
      on.close(gone);
    };
    return overWebRtc(session, { ...on, message, close }, iceServers);
  };
}

// Leave the session that there may be, for a new one.
function leave() {
  stopRecording();
  connected = unsent = false;
  const left = stream;
  stream = null; // so that its end is not this page's
  left?.stop();
}

// What the stream says

function lost() {
  connected = false;
  showState("lost");
}

function attached(session, resumed) {
  connected = true;
  resuming ||= resumed;
  setPaused(session.state === "paused");
  camera.attached();
  if (unsent) change();
  setAdapters(adapters.chosen);
}

function message(reply) {
  if (reply.type === "prompt") {
    showNotices(reply.warnings);
    showExpanded(reply.expanded);
    asked.taken(reply);
    figures.promptTaken(reply.prompt_id, sentAt.get(reply.ref) ?? performance.now());
    sentAt.delete(reply.ref);
  } else if (reply.type === "adapters") adapters.told(reply.strengths);
  else if (reply.type === "source") camera.taken(reply);
  else if (reply.type === "state") setPaused(reply.state === "paused");
  else if (reply.type === "error") showProblem(reply.error.message);
  else if (reply.type === "chunk") {
    figures.chunk(reply);
    chunkShown = reply;
  }
}

function over(why) {
  if (!stream) return;
  stopRecording();
  stream = null;
  sessionStorage.removeItem(KEPT);
  byId("watch-field").hidden = true;
  showState("ended", why);
}

// What is shown

let chunkShown = null; // over WebRTC: the chunk whose frames are on their way

function shown(header) {
  figures.chunk(header);
  picture(header);
}

function picture(header) {
  figures.frame(header, performance.now());
  asked.frame(header);
  byId("canvas").dataset.frame = header.frame;
  byId("canvas").dataset.prompt = header.prompt_id;
  if (!stream || !connected || paused || ["live", "resumed"].includes(document.body.dataset.state)) return;
  showState(resuming ? "resumed" : "live");
  if (resuming) setTimeout(() => document.body.dataset.state === "resumed" && showState("live"), RESUMED_MS);
  resuming = false;
}

function playMedia(media) {
  const video = byId("video");
  video.srcObject = media;
  video.play().catch(() => {}); // a new stream that comes at once interrupts it
  const onFrame = () => {
    if (video.srcObject !== media) return;
    if (chunkShown) picture(chunkShown);
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);
}

// Controls

function submit(event) {
  event.preventDefault();
  showProblem("");
  if (!byId("locked").hidden) {
    serverToken = byId("token").value;
    return load();
  }
  if (!blend.prompt()) return showProblem("Write what you want to see.");
  return stream ? change() : start();
}

// Send the prompt to the stream, now or as soon as there is a connection.
function change() {
  unsent = !connected;
  if (unsent) return;
  const ref = (refs += 1);
  sentAt = new Map([...sentAt].slice(-8)).set(ref, performance.now());
  stream.send({ type: "prompt", prompt: blend.prompt(), over: blend.over(), ref });
  address(byId("prompt").value.trim(), stream.session.seed);
}

function setAdapters(strengths) {
  if (Object.keys(strengths).length) stream.send({ type: "adapters", strengths });
}

const isWanted = () => stream !== null || ["connecting", "full", "lost"].includes(document.body.dataset.state);

// A chip was pressed: a stream that runs, or is on its way, follows at once.
function changeLive() {
  showProblem("");
  if (isWanted() && blend.prompt()) change();
}

// A stream has one seed: while it runs, a surprise changes its prompt alone.
function surprise() {
  showProblem("");
  chips.surprise();
  if (isWanted()) return change();
  byId("seed").value = Math.floor(Math.random() * SEEDS);
  return start();
}

function play(prompt, seed) {
  showProblem("");
  chips.write(prompt);
  byId("seed").value = seed;
  return start();
}

async function share() {
  const link = address(byId("prompt").value.trim(), byId("seed").valueAsNumber || 0);
  showCopied((await copy(link)) ? "Link copied" : "Copy this page's address");
  setTimeout(showCopied, COPIED_MS, "");
}

// Whoever has a stream's address may watch it.
async function copyAddress() {
  const kind = byId("watch").value;
  byId("watch").value = "";
  const link = addressOf(JSON.parse(sessionStorage.getItem(KEPT)), kind);
  if (!(await copy(link))) return window.prompt("Whoever has this address may watch", link);
  showCopied("Address copied: whoever has it may watch");
  return setTimeout(showCopied, COPIED_MS, "");
}

const copy = async (text) => navigator.clipboard?.writeText(text).then(() => true, () => false);

function setPaused(value) {
  paused = player.paused = value;
  if (value) showState("paused");
  else if (document.body.dataset.state === "paused") showState("live");
}

function togglePause() {
  if (!stream || byId("pause").disabled) return;
  stream.send({ type: paused ? "resume" : "pause" });
  setPaused(!paused);
}

function stop() {
  attempt += 1;
  if (stream) stream.stop();
  else showState("idle");
}

function toggleRecording() {
  if (recorder.on) return stopRecording();
  const webRtc = !byId("video").hidden;
  const media = webRtc ? byId("video").srcObject : byId("canvas").captureStream();
  const { width, height } = byId("canvas");
  const name = `pyrf-seed-${byId("seed-shown").textContent}-${new Date().toISOString().replace(/[:.]/g, "-")}`;
  recorder.start(media, { width, height, fps, name });
  return showRecording();
}

function stopRecording() {
  recorder.stop();
  showRecording();
}

function showRecording() {
  byId("record").setAttribute("aria-pressed", recorder.on);
  byId("record").textContent = recorder.on ? "Save" : "Record";
}

function sendOnEnter(event) {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("form").requestSubmit();
}

function onKey(event) {
  const typing = event.target.closest?.("textarea, input, select, button, a");
  if (event.key === "Escape") event.target.blur();
  else if (event.key === " " && !typing && !event.repeat) {
    event.preventDefault();
    togglePause();
  }
}

byId("form").addEventListener("submit", submit);
for (const id of ["prompt", "second"]) byId(id).addEventListener("keydown", sendOnEnter);
byId("surprise").addEventListener("click", surprise);
byId("share").addEventListener("click", share);
byId("watch").addEventListener("change", copyAddress);
byId("pause").addEventListener("click", togglePause);
byId("stop").addEventListener("click", stop);
byId("restart").addEventListener("click", start);
byId("record").addEventListener("click", toggleRecording);
document.addEventListener("keydown", onKey);
addEventListener("hashchange", followAddress);

load();
