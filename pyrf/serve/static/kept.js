// The tab's session, in sessionStorage: a reloaded page goes on with its stream.

const KEY = "pyrf-session";

export const keep = ({ id, token, watch }) => sessionStorage.setItem(KEY, JSON.stringify({ id, token, watch }));

// { id, token, watch }, or null.
export const kept = () => JSON.parse(sessionStorage.getItem(KEY) ?? "null");

export const forget = () => sessionStorage.removeItem(KEY);
