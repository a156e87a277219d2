// Records what is shown, and saves it as a file.

const TYPES = ["video/mp4;codecs=avc1.640028", "video/mp4", "video/webm;codecs=vp9", "video/webm"];
const BITS_PER_PIXEL = 0.6; // small pictures of sharp shapes need many; 480 x 832 at 16 fps gets 3.8 Mbit/s
const LEAST_BITS = 1_000_000;

const byId = (id) => document.getElementById(id);

export class Recorder {
  #recorder = null;

  // source(): what is to be recorded, { media, width, height, fps, name }; media is a MediaStream with one video
  // track.
  constructor(source) {
    byId("record").addEventListener("click", () => (this.#recorder ? this.stop() : this.#start(source())));
  }

  #start({ media, width, height, fps, name }) {
    const mimeType = TYPES.find((type) => MediaRecorder.isTypeSupported(type));
    const videoBitsPerSecond = Math.max(LEAST_BITS, BITS_PER_PIXEL * width * height * fps);
    const recorder = new MediaRecorder(media, { mimeType, videoBitsPerSecond });
    const parts = [];
    recorder.ondataavailable = ({ data }) => parts.push(data);
    recorder.onstop = () => {
      const extension = recorder.mimeType.includes("mp4") ? "mp4" : "webm";
      save(new Blob(parts, { type: recorder.mimeType }), `${name}.${extension}`);
    };
    recorder.start(1000);
    this.#recorder = recorder;
    this.#show();
  }

  stop() {
    if (this.#recorder?.state === "recording") this.#recorder.stop();
    this.#recorder = null;
    this.#show();
  }

  #show() {
    const on = this.#recorder !== null;
    byId("record").setAttribute("aria-pressed", on);
    byId("record").textContent = on ? "Save" : "Record";
  }
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
