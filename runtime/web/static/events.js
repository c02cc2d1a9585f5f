// Reads the manager's live events from a fetch stream, since EventSource cannot send the token.

import { request } from './api.js';

const SILENCE_MS = 12000; // the manager sends an event or a ping every 5 s
const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 5000;

/** Return a function that splits text into server-sent events and calls give(name, data) for each complete one. */
export function parser(give) {
  let rest = '';
  let name = 'message';
  let data = [];
  return (text) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop();
    for (const raw of lines) {
      const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
      if (line === '') {
        if (data.length) give(name, data.join('\n'));
        name = 'message';
        data = [];
        continue;
      }
      const colon = line.indexOf(':');
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (field === 'event') name = value;
      else if (field === 'data') data.push(value);
    }
  };
}

async function readOnce(stopping, onEvent, onOpen) {
  const control = new AbortController();
  const abort = () => control.abort();
  stopping.addEventListener('abort', abort);
  let watchdog = setTimeout(abort, SILENCE_MS);
  try {
    const response = await request('GET', '/api/events', { signal: control.signal });
    onOpen();
    const read = parser((name, data) => onEvent(name, JSON.parse(data)));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(watchdog);
      watchdog = setTimeout(abort, SILENCE_MS);
      read(value);
    }
  } finally {
    clearTimeout(watchdog);
    stopping.removeEventListener('abort', abort);
    control.abort();
  }
}

/** Wait, but no longer than until the machine is online again. */
function pause(ms, stopping) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      window.removeEventListener('online', end);
      stopping.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    window.addEventListener('online', end);
    stopping.addEventListener('abort', end);
  });
}

/**
 * Follow the events until stopped, and connect again whenever the connection is lost.
 * Calls onState('live'), or onState('lost', milliseconds until the next try). Returns a function that stops.
 */
export function follow(onEvent, onState) {
  const stop = new AbortController();
  (async () => {
    let wait = FIRST_WAIT_MS;
    while (!stop.signal.aborted) {
      try {
        await readOnce(stop.signal, onEvent, () => {
          wait = FIRST_WAIT_MS;
          onState('live');
        });
      } catch (error) {
        if (error.status === 401) return; // the form for the token is already shown
        if (error.name !== 'AbortError' && error.status === undefined) console.warn(error);
      }
      if (stop.signal.aborted) return;
      const jittered = wait * (0.75 + Math.random() / 2);
      onState('lost', jittered);
      await pause(jittered, stop.signal);
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  })();
  return () => stop.abort();
}
