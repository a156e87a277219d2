// Two ways to attach to a session. Each calls
//   on.message(message)       for a JSON message,
//   on.frame(header, blob)    for a JPEG frame (WebSocket),
//   on.media(stream)          for a video track (WebRTC),
//   on.close(gone)            once, at the end; gone: there is no such session any more.
// and returns { send(message), sendFrame(blob), useTrack(track), close() }: a JPEG or a video track of the
// viewer's own. useTrack says whether the connection carries tracks.

import { answerOffer, openSocket, Refusal } from "./api.js";

const NO_SESSION = 4404;
const CONNECT_MS = 10_000;
const ICE_MS = 3_000;
const MOST_WAITING = 262_144; // bytes; a picture that has to wait behind more of them would come too late

export function overWebSocket(session, on) {
  const socket = openSocket(session);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") on.message(JSON.parse(data));
    else on.frame(...unpackFrame(data));
  };
  socket.onclose = ({ code }) => on.close(code === NO_SESSION);
  return {
    send: (message) => {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
    },
    sendFrame: (blob) => {
      if (socket.readyState === WebSocket.OPEN && socket.bufferedAmount < MOST_WAITING) socket.send(blob);
    },
    useTrack: () => false,
    close: () => {
      socket.onmessage = null; // what is still on its way is not wanted
      socket.close();
    },
  };
}

// 4 bytes length (big-endian), header as JSON, JPEG.
function unpackFrame(data) {
  const end = 4 + new DataView(data).getUint32(0);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, end - 4)));
  return [header, new Blob([new Uint8Array(data, end)], { type: "image/jpeg" })];
}

function overWebRtc(session, on, iceServers) {
  const peer = new RTCPeerConnection({ iceServers });
  const channel = peer.createDataChannel("control");
  let closed = false;
  const close = (gone = false) => {
    if (closed) return;
    closed = true;
    clearTimeout(timer);
    peer.close();
    on.close(gone);
  };
  const timer = setTimeout(close, CONNECT_MS);
  channel.onopen = () => clearTimeout(timer);
  channel.onmessage = ({ data }) => on.message(JSON.parse(data));
  channel.onclose = () => close();
  peer.ontrack = ({ track }) => on.media(new MediaStream([track]));
  peer.onconnectionstatechange = () => {
    if (["failed", "disconnected", "closed"].includes(peer.connectionState)) close();
  };
  offer(peer, session).catch((error) => close(error instanceof Refusal && error.status === 404));
  return {
    send: (message) => {
      if (channel.readyState === "open") channel.send(JSON.stringify(message));
    },
    sendFrame: () => {},
    useTrack: (track) => {
      peer.getSenders()[0].replaceTrack(track).catch(() => {}); // the connection has just been closed
      return true;
    },
    close: () => close(),
  };
}

// Attaches over WebRTC. onUnusable(session) is called when no connection has ever stood: the browser, or the network
// between, may not let it. iceServers() is asked at each try.
export function overWebRtcFirst(iceServers, onUnusable) {
  let stood = false;
  return (session, on) => {
    const message = (reply) => {
      stood ||= reply.type === "hello";
      on.message(reply);
    };
    const close = (gone) => {
      if (!stood && !gone) onUnusable(session);
      on.close(gone);
    };
    return overWebRtc(session, { ...on, message, close }, iceServers());
  };
}

async function offer(peer, session) {
  peer.addTransceiver("video", { direction: "sendrecv" });
  await peer.setLocalDescription();
  await candidatesGathered(peer);
  await peer.setRemoteDescription(await answerOffer(session, peer.localDescription));
}

function candidatesGathered(peer) {
  return new Promise((resolve) => {
    const check = () => peer.iceGatheringState === "complete" && resolve();
    peer.addEventListener("icegatheringstatechange", check);
    setTimeout(resolve, ICE_MS); // what was found by then will do
    check();
  });
}
