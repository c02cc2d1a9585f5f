// Lists the last jobs, the newest first; choosing one shows its answer and where its time went.

import { $, el, keyed, roving, setAttribute, setHidden, setText } from './dom.js';
import { clock, time } from './format.js';
import { changed, newestFirst, state, watch } from './state.js';

let keepTabStop = () => {};

/** The job whose answer is shown: an input that is being sent, else the chosen job, else the newest. */
export function chosenJob() {
  return state.input ?? state.jobs.get(state.chosenJob) ?? [...state.jobs.values()].sort(newestFirst)[0];
}

function makeJob({ id }) {
  const parts = {
    name: el('span', { class: 'name' }),
    best: el('span', { class: 'best' }),
    state: el('span'),
    at: el('span', { class: 'at' }),
  };
  const choose = () => {
    state.chosenJob = id;
    state.input = null;
    changed('jobs');
  };
  parts.button = el(
    'button',
    { type: 'button', tabindex: '-1', onclick: choose },
    parts.at,
    parts.name,
    parts.best,
    parts.state,
  );
  const node = el('li', { 'data-job': id }, parts.button);
  node.parts = parts;
  return node;
}

function updateJob({ parts }, job, chosen) {
  const best = job.top?.[0];
  setText(parts.at, clock(job.submitted_at));
  setText(parts.name, job.name);
  setText(parts.best, best ? (best.label ?? `class ${best.index}`) : '');
  const word = job.blocked ? 'blocked' : job.state;
  setText(parts.state, job.state === 'done' ? time(job.seconds) : word);
  setAttribute(parts.state, 'class', `state ${word}`);
  setAttribute(parts.button, 'aria-pressed', String(job === chosen));
}

function draw() {
  const jobs = [...state.jobs.values()].sort(newestFirst);
  const chosen = chosenJob();
  keyed(
    $('jobs'),
    jobs,
    ({ id }) => id,
    makeJob,
    (node, job) => updateJob(node, job, chosen),
  );
  setHidden($('no-jobs'), jobs.length > 0);
  keepTabStop();
}

export function setUpJobs() {
  keepTabStop = roving($('jobs'), 'button');
  watch(['jobs'], draw);
}
