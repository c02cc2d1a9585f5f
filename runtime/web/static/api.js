// Sends requests to the manager: with the token, JSON, errors of one line, and uploads with progress.

const KEY = 'hyps-token';
let token = sessionStorage.getItem(KEY) ?? '';
let whenRefused = () => {};

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status; // 0: the manager did not answer
  }
}

/** Take the token out of the address (#token=...), so that it is neither bookmarked nor shared. */
export function takeTokenFromAddress() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (!found) return false;
  history.replaceState(null, '', location.pathname + location.search);
  try {
    setToken(decodeURIComponent(found[1]));
  } catch {
    setToken(found[1]); // a stray % is part of the token
  }
  return true;
}

export function setToken(text) {
  token = text.trim();
  if (token) sessionStorage.setItem(KEY, token);
  else sessionStorage.removeItem(KEY);
}

export const hasToken = () => token !== '';

/** Set the function to call when the manager refuses the token. */
export function onRefused(callback) {
  whenRefused = callback;
}

// A header may hold visible ASCII only. Any other token is wrong, and fetch would throw on it.
const headers = () => (/^[\x21-\x7e]+$/.test(token) ? { Authorization: `Bearer ${token}` } : {});

const UNREACHABLE = 'The manager does not answer. Is it running?';

function lineOf(status, text) {
  try {
    const { detail } = JSON.parse(text);
    if (typeof detail === 'string') return detail;
    if (Array.isArray(detail)) return detail.map((each) => each.msg).join('; ');
  } catch {
    // It is not JSON: a proxy answered, not the manager.
  }
  if (status === 413) return 'The file is too large for the manager.';
  return `The manager answered with status ${status}. Try again.`;
}

function refuse(status, text) {
  if (status === 401) whenRefused();
  return new ApiError(status, status === 401 ? 'wrong token' : lineOf(status, text));
}

/** Send a request and return the Response, or throw an ApiError if it is refused. */
export async function request(method, path, { json, body, signal } = {}) {
  const init = { method, headers: headers(), signal, cache: 'no-store' };
  if (json !== undefined) {
    init.headers['Content-Type'] = 'application/json';
    init.body = JSON.stringify(json);
  } else if (body !== undefined) {
    init.headers['Content-Type'] = 'application/octet-stream';
    init.body = body;
  }
  let response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(0, UNREACHABLE);
  }
  if (!response.ok) throw refuse(response.status, await response.text().catch(() => ''));
  return response;
}

/** Send a request and return the answer's JSON, or null if it has none. */
export async function call(method, path, options) {
  const response = await request(method, path, options);
  return response.status === 204 ? null : response.json();
}

export const path = (...parts) => '/api/' + parts.map(encodeURIComponent).join('/');

/** PUT a file. XMLHttpRequest reports the progress of an upload; fetch does not. */
export function upload(address, file, { signal, progress }) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open('PUT', address);
    for (const [name, value] of Object.entries(headers())) sending.setRequestHeader(name, value);
    sending.setRequestHeader('Content-Type', 'application/octet-stream');
    sending.upload.onprogress = (event) => progress(event.loaded);
    sending.onload = () => (sending.status < 300 ? resolve() : reject(refuse(sending.status, sending.responseText)));
    // A server that refuses a large body may close the connection before its answer is read.
    sending.onerror = () =>
      reject(
        new ApiError(0, `${file.name} was not uploaded: the connection closed. The file may be too large.`),
      );
    sending.onabort = () => reject(new DOMException('cancelled', 'AbortError'));
    signal.addEventListener('abort', () => sending.abort());
    if (signal.aborted) sending.abort();
    sending.send(file);
  });
}
