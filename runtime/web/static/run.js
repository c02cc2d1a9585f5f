// A photograph in, its five best labels out.

import { ApiError, call } from './api.js';
import { setUpCamera } from './camera.js';
import { $, dropZone, el, keyed, setClass, setHidden, setStyle, setText } from './dom.js';
import { time } from './format.js';
import { chosenJob } from './jobs.js';
import { act } from './messages.js';
import { changed, onEvent, state, take, watch } from './state.js';

const POLL_MS = 3000; // should an event be missed

const waiting = new Map(); // job id -> function that gets the finished job
const finished = (job) => job.state === 'done' || job.state === 'failed';

/** Send one input; returns its Job. */
async function submit(blob, name) {
  const job = await call('POST', `/api/jobs?name=${encodeURIComponent(name)}`, { body: blob });
  state.chosenJob = job.id;
  take('job', state.jobs.get(job.id) ?? job); // its events may have been faster
  return job;
}

/** The job when it is done or failed. */
async function finish(id) {
  const known = state.jobs.get(id);
  if (known && finished(known)) return known;
  return new Promise((resolve, reject) => {
    const end = (job) => {
      clearInterval(timer);
      waiting.delete(id);
      resolve(job);
    };
    const timer = setInterval(async () => {
      try {
        take('job', await call('GET', `/api/jobs/${encodeURIComponent(id)}`));
      } catch (error) {
        if (error.status === 0) return; // the manager may come back
        clearInterval(timer);
        reject(error);
      }
    }, POLL_MS);
    waiting.set(id, end);
  });
}

let pictured = ''; // the blob: address of the preview

function preview(file) {
  URL.revokeObjectURL(pictured);
  const image = $('preview');
  image.hidden = !file.type.startsWith('image/');
  pictured = image.hidden ? '' : URL.createObjectURL(file);
  if (pictured) image.src = pictured;
}

async function runFile(files) {
  if (files.length > 1) throw new ApiError(0, 'One photograph at a time.');
  const [file] = files;
  preview(file);
  const job = await submit(file, file.name);
  const done = await finish(job.id);
  if (done.state === 'failed') throw new ApiError(0, `${done.name}: ${done.reason ?? 'failed'}`);
}

function sentence(job) {
  if (!job) return 'Nothing was run yet.';
  if (job.state === 'failed') return `${job.name}: failed. ${job.reason ?? ''}`;
  if (job.state === 'done') return `${job.name}: ${time(job.seconds)}`;
  return `${job.name}: ${job.state} …`;
}

/** Scores that are probabilities are shown as such; others as they are, the best with a full bar. */
function scale(top) {
  const likely = top.every(({ score }) => score !== null && score >= 0 && score <= 1);
  const best = Math.max(...top.map(({ score }) => Math.abs(score)), 1e-30);
  return likely
    ? ({ score }) => ({ part: score, text: `${(score * 100).toFixed(1)} %` })
    : ({ score }) => ({ part: Math.max(0, score / best), text: score?.toPrecision(4) ?? 'no number' });
}

function makeLabel() {
  const parts = {
    name: el('span', { class: 'label' }),
    bar: el('span', { class: 'used' }),
    score: el('span', { class: 'score' }),
  };
  const node = el(
    'li',
    {},
    parts.name,
    el('span', { class: 'meter', 'aria-hidden': 'true' }, parts.bar),
    parts.score,
  );
  node.parts = parts;
  return node;
}

function draw() {
  const job = chosenJob();
  setText($('job-state'), sentence(job));
  setClass($('job-state'), 'problem', job?.state === 'failed');
  if (job && !finished(job) && job.id === state.chosenJob) return; // the last answer stays until the next is there
  const top = (job?.top ?? []).slice(0, 5);
  const shown = scale(top);
  keyed(
    $('top5'),
    top.map((each, rank) => ({ ...each, rank })),
    ({ rank }) => rank,
    makeLabel,
    ({ parts }, each) => {
      const { part, text } = shown(each);
      setText(parts.name, each.label ?? `class ${each.index}`);
      setStyle(parts.bar, 'transform', `scaleX(${Math.min(1, part).toFixed(3)})`);
      setText(parts.score, text);
    },
  );
  setHidden($('top5'), !top.length);
}

export function setUpRun() {
  watch(['jobs'], draw);
  onEvent('job', (job) => finished(job) && waiting.get(job.id)?.(job));
  onEvent('jobs', (jobs) => {
    for (const job of jobs) if (finished(job)) waiting.get(job.id)?.(job);
  });
  const input = $('image-file');
  const start = (files) => act(() => runFile(files));
  input.addEventListener('change', () => {
    if (input.files.length) start([...input.files]);
    input.value = '';
  });
  dropZone($('drop-image'), start);
  setUpCamera(submit, finish);
  changed('jobs');
}
