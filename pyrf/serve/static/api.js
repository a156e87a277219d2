// The server's HTTP calls. Paths are relative, so that the page works below any prefix.

export class Refusal extends Error {
  constructor(status, { code, message, retry_after: retryAfter, progress }) {
    super(message);
    Object.assign(this, { status, code, retryAfter, progress });
  }
}

async function call(method, path, token, body) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  if (response.ok) return response.status === 204 ? null : response.json();
  const fallback = { code: "error", message: `the server answered ${response.status}` };
  const reply = await response.json().catch(() => ({}));
  throw new Refusal(response.status, { ...fallback, ...reply.error });
}

export const modelInfo = (token, model) =>
  call("GET", model ? `v1/model?${new URLSearchParams({ model })}` : "v1/model", token);

export const createSession = (token, request) => call("POST", "v1/sessions", token, request);

export const sessionInfo = ({ id, token }) => call("GET", `v1/sessions/${id}`, token);

export const answerOffer = ({ id, token }, { type, sdp }) =>
  call("POST", `v1/sessions/${id}/webrtc`, token, { type, sdp });

// A browser sets no headers here, and an address ends up in logs: the token travels as a subprotocol.
export function openSocket({ id, token }) {
  const url = new URL(`v1/sessions/${id}/ws?format=jpeg`, document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(url, ["pyrf.v1", `pyrf.token.${token}`]);
}
