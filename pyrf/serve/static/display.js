// The picture: frames on a canvas over the WebSocket, a video over WebRTC.

import { Player } from "./player.js";

const byId = (id) => document.getElementById(id);

export class Display {
  #player;
  #chunk = null; // over WebRTC: the chunk whose frames are on their way

  // onChunk(header): of a chunk that is shown; onPicture(header): a frame reached the screen.
  constructor(onChunk, onPicture) {
    Object.assign(this, { onChunk, onPicture });
    this.#player = new Player(byId("canvas"), (header) => {
      onChunk(header);
      onPicture(header);
    });
  }

  set fps(value) {
    this.#player.fps = value;
  }

  set paused(value) {
    this.#player.paused = value;
  }

  // Whether it is the video that is looked at.
  set isVideo(value) {
    byId("canvas").hidden = value;
    byId("video").hidden = !value;
  }

  // What is looked at, as a MediaStream.
  get media() {
    return byId("video").hidden ? byId("canvas").captureStream() : byId("video").srcObject;
  }

  // Forget the frames that wait.
  reset() {
    this.#player.reset();
  }

  push(header, blob) {
    this.#player.push(header, blob);
  }

  // Over WebRTC: the first frame of a chunk is on its way.
  chunk(header) {
    this.onChunk(header);
    this.#chunk = header;
  }

  play(media) {
    const video = byId("video");
    video.srcObject = media;
    video.play().catch(() => {}); // a new stream that comes at once interrupts it
    const onFrame = () => {
      if (video.srcObject !== media) return;
      if (this.#chunk) this.onPicture(this.#chunk);
      video.requestVideoFrameCallback(onFrame);
    };
    video.requestVideoFrameCallback(onFrame);
  }
}
