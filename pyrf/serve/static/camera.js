// The viewer's own video: shown beside the stream, and sent to be restyled.

const byId = (id) => document.getElementById(id);
const QUALITY = 0.85;

export class Camera {
  #media = null;
  #timer = 0;
  #encoding = false;
  #picture = document.createElement("canvas");

  // send(message), sendFrame(blob), useTrack(track or null): of the connection; problem(text): for people.
  // useTrack returns whether the connection carries the track, so that no pictures need to be sent.
  constructor({ send, sendFrame, useTrack, problem }) {
    Object.assign(this, { send, sendFrame, useTrack, problem });
    byId("camera").addEventListener("click", () => (this.on ? this.stop() : this.start()));
    for (const id of ["strength", "follow-motion"]) byId(id).addEventListener("input", () => this.#say());
    this.#show();
  }

  get on() {
    return this.#media !== null;
  }

  get strength() {
    return byId("strength").valueAsNumber / 100;
  }

  // How often pictures are sent, at most.
  limit(fps, limits) {
    this.fps = Math.min(fps, limits.source_frames_per_second ?? 0);
    byId("mine").hidden = !this.fps; // an older server takes none
  }

  async start() {
    try {
      const { width, height } = byId("canvas");
      const video = { width: { ideal: Math.max(width, 320) }, height: { ideal: Math.max(height, 240) } };
      this.#media = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    } catch (error) {
      return this.problem(`The camera cannot be used: ${error.message}`);
    }
    byId("own").srcObject = this.#media;
    byId("own").play().catch(() => {});
    this.#media.getVideoTracks()[0].addEventListener("ended", () => this.stop());
    return this.attached();
  }

  stop() {
    for (const track of this.#media?.getTracks() ?? []) track.stop();
    this.#media = byId("own").srcObject = null;
    clearInterval(this.#timer);
    this.useTrack(null);
    this.send({ type: "source", strength: null });
    this.#show();
  }

  // A connection stands: it does not know of the camera yet.
  attached() {
    this.#show();
    clearInterval(this.#timer);
    if (!this.on) return;
    this.#say();
    const carried = this.useTrack(this.#media.getVideoTracks()[0]);
    if (!carried) this.#timer = setInterval(() => this.#send(), 1000 / this.fps);
  }

  // The server has taken a strength.
  taken({ strength = null, follow_motion = false }) {
    byId("strength-shown").dataset.taken = strength ?? "";
    byId("follow-motion").dataset.taken = follow_motion;
  }

  #say() {
    this.#show();
    if (!this.on) return;
    this.send({ type: "source", strength: this.strength, follow_motion: byId("follow-motion").checked });
  }

  #show() {
    byId("camera").setAttribute("aria-pressed", this.on);
    byId("camera").textContent = this.on ? "Stop my camera" : "Use my camera";
    byId("own").hidden = !this.on;
    byId("strength-shown").textContent = this.strength.toFixed(2);
  }

  // The newest picture, scaled to cover the stream's frame and cropped evenly, as the server would do.
  #send() {
    const video = byId("own");
    if (this.#encoding || !video.videoWidth) return;
    const { width, height } = Object.assign(this.#picture, {
      width: byId("canvas").width,
      height: byId("canvas").height,
    });
    const scale = Math.min(video.videoWidth / width, video.videoHeight / height);
    const [across, down] = [width * scale, height * scale];
    const corner = [(video.videoWidth - across) / 2, (video.videoHeight - down) / 2];
    this.#picture.getContext("2d").drawImage(video, ...corner, across, down, 0, 0, width, height);
    this.#encoding = true;
    this.#picture.toBlob(
      (blob) => {
        this.#encoding = false;
        if (blob && this.on) this.sendFrame(blob);
      },
      "image/jpeg",
      QUALITY,
    );
  }
}
