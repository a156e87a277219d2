// The addresses at which others watch the stream that runs, for programs that play them.

const ENDS = { whep: "whep", hls: "hls/live.m3u8", jpeg: "frames.mjpeg" };

// Of a session and a kind of player; `watch` is the path that the server gave when the session began.
export const addressOf = ({ watch }, kind) =>
  new URL(`${watch.replace(/^\//, "")}/${ENDS[kind]}`, document.baseURI).href;
