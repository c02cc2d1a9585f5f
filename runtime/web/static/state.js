// Holds all that the page knows, and redraws the views that depend on a change, at most once per frame.

export const state = {
  connection: 'connecting', // live | lost
  frozenAt: null, // when the connection was lost: times stop counting there
  status: null,
  statusAt: 0, // performance.now() of the status
  jobs: new Map(), // id -> Job
  builds: new Map(), // id -> Build
  models: [],
  bundles: [],
  targets: [],
  chosenJob: null, // the id of the job whose answer is shown; null: the newest
  input: null, // an input that is not a job yet, shown in place of one: {name, state: sending | failed, reason}
};

const KEPT_JOBS = 200;
const views = [];
let scheduled = false;

/** Have draw called in the next frame after any of the topics has changed. */
export function watch(topics, draw) {
  views.push({ topics, draw, stale: true });
}

export function changed(...topics) {
  for (const view of views) if (view.topics.some((topic) => topics.includes(topic))) view.stale = true;
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    for (const view of views) {
      if (!view.stale) continue;
      view.stale = false;
      view.draw();
    }
  });
}

const keepers = {
  status(status) {
    state.status = status;
    state.statusAt = performance.now();
    state.frozenAt = null;
  },
  jobs(jobs) {
    state.jobs = new Map(jobs.map((job) => [job.id, job]));
  },
  job(job) {
    state.jobs.set(job.id, job);
    if (state.jobs.size > KEPT_JOBS) dropOldest();
  },
  builds(builds) {
    state.builds = new Map(builds.map((build) => [build.id, build]));
  },
  build(build) {
    state.builds.set(build.id, build);
  },
  library({ models, bundles }) {
    Object.assign(state, { models, bundles });
  },
};

const TOPIC = { job: 'jobs', build: 'builds' };

function dropOldest() {
  const oldest = [...state.jobs.values()]
    .filter((job) => job.id !== state.chosenJob)
    .sort(newestFirst)
    .pop();
  state.jobs.delete(oldest.id);
}

export const newestFirst = (a, b) => (b.submitted_at ?? b.began_at) - (a.submitted_at ?? a.began_at);

const listeners = new Map();

/** Have listener called for every event, not only for the last one before a frame. */
export function onEvent(name, listener) {
  listeners.set(name, [...(listeners.get(name) ?? []), listener]);
}

/** Store an event of the manager. */
export function take(name, data) {
  if (!keepers[name]) return;
  const before = name === 'status' ? state.status : null;
  keepers[name](data);
  for (const listener of listeners.get(name) ?? []) listener(data, before);
  changed(TOPIC[name] ?? name);
}

/** Seconds since the manager heard from the worker: its own count, and the time since the status came. */
export function seenSeconds(worker) {
  const now = state.frozenAt ?? performance.now();
  return worker.seen_s + Math.max(0, now - state.statusAt) / 1000;
}

const GONE_S = 1.5; // three messages of a worker that did not come
export const isGone = (worker) => !worker.online || seenSeconds(worker) > GONE_S;

const order = new Map();

/** The hue of a board; it stays the same while the page is open. */
export function hueOf(worker) {
  if (!order.has(worker)) order.set(worker, order.size);
  return hue(order.get(worker));
}

/** The hue of a number, by the golden angle: neighbours differ, and hues do not repeat. */
export const hue = (index) => ((index * 137.508 + 250) % 360).toFixed(0);
