// A session that outlives its connections: attaches, and after a lost connection attaches again.

const FIRST_RETRY_MS = 250;
const LONGEST_RETRY_MS = 4_000;
const PATIENCE_S = 5; // beyond the server's grace period

export class Stream {
  #connection = null;
  #timer = 0;
  #retryMs = FIRST_RETRY_MS;
  #lostAt = null;
  #over = false;

  // attach: one of transports.js. on: what transports.js calls but close, and
  //   on.attached(session, resumed), on.lost(), on.ended(message).
  constructor(session, attach, on) {
    Object.assign(this, { session, attach, on });
    addEventListener("online", this.#retryNow);
    this.#connect();
  }

  #connect() {
    let ending = null;
    this.#connection = this.attach(this.session, {
      ...this.on,
      message: (message) => {
        if (message.type === "closing") ending = message.message;
        else if (message.type === "hello") this.#attached(message.session);
        else this.on.message(message);
      },
      close: (gone) => {
        this.#connection = null;
        if (this.#over) return;
        if (ending) this.#end(ending);
        else if (gone) this.#end("the session is no longer there");
        else this.#lost();
      },
    });
  }

  #attached(session) {
    const resumed = this.#lostAt !== null;
    this.#lostAt = null;
    this.#retryMs = FIRST_RETRY_MS;
    this.on.attached(session, resumed);
  }

  #lost() {
    this.#lostAt ??= performance.now();
    const lostS = (performance.now() - this.#lostAt) / 1000;
    if (lostS > this.session.grace_s + PATIENCE_S) {
      this.#end("the server cannot be reached");
      return;
    }
    this.on.lost();
    this.#timer = setTimeout(this.#retryNow, this.#retryMs * (0.75 + Math.random() / 2));
    this.#retryMs = Math.min(2 * this.#retryMs, LONGEST_RETRY_MS);
  }

  #retryNow = () => {
    if (this.#over || this.#connection) return;
    clearTimeout(this.#timer);
    this.#connect();
  };

  send(message) {
    this.#connection?.send(message);
  }

  sendFrame(blob) {
    this.#connection?.sendFrame(blob);
  }

  useTrack(track) {
    return this.#connection?.useTrack(track) ?? false;
  }

  // End the session.
  stop() {
    this.send({ type: "close" });
    this.#end("stopped");
  }

  // Leave the session to its grace period.
  detach() {
    this.#over = true;
    clearTimeout(this.#timer);
    removeEventListener("online", this.#retryNow);
    this.#connection?.close();
  }

  #end(message) {
    this.detach();
    this.on.ended(message);
  }
}
