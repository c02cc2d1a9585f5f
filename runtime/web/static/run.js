// Takes a photograph or a tensor, and shows the five best classes of its answer.

import { ApiError, call, path } from './api.js';
import { cameraRuns, setUpCamera } from './camera.js';
import { $, dropZone, el, keyed, setClass, setHidden, setStyle, setText } from './dom.js';
import { exitOf, makeBar } from './exits.js';
import { time } from './format.js';
import { chosenJob } from './jobs.js';
import { act, button } from './messages.js';
import { changed, onEvent, state, take, watch } from './state.js';

const POLL_MS = 3000; // in case an event is missed

const waiting = new Map(); // job id -> function that is called with the finished job
const finished = (job) => ['done', 'failed', 'cancelled'].includes(job.state);

/** Send an input, and show its job. */
async function submit(blob, name) {
  const job = await call('POST', `/api/jobs?name=${encodeURIComponent(name)}&exact=${$('exact').checked}`, { body: blob });
  state.chosenJob = job.id;
  take('job', state.jobs.get(job.id) ?? job); // an event may have come first
  return job;
}

/** Return the job once it has ended. */
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
        take('job', await call('GET', path('jobs', id)));
      } catch (error) {
        if (error.status === 0) return; // the manager may come back
        clearInterval(timer);
        reject(error);
      }
    }, POLL_MS);
    waiting.set(id, end);
  });
}

const picture = { address: '', of: null }; // the preview's blob: address, and the input or job id that it belongs to

function preview(file, input) {
  URL.revokeObjectURL(picture.address);
  picture.address = file.type.startsWith('image/') ? URL.createObjectURL(file) : '';
  picture.of = input;
  if (picture.address) $('preview').src = picture.address;
}

async function runFile(files) {
  if (files.length > 1) throw new ApiError(0, 'Choose one photograph at a time.');
  const [file] = files;
  const input = { name: file.name, state: 'sending' }; // shown at once, in place of the answer before
  state.input = input;
  preview(file, input);
  changed('jobs');
  let job;
  try {
    job = await submit(file, file.name);
  } catch (error) {
    Object.assign(input, { state: 'failed', reason: error.message });
    changed('jobs');
    throw error;
  }
  if (picture.of === input) picture.of = job.id;
  if (state.input === input) state.input = null;
  changed('jobs');
  const done = await finish(job.id);
  if (done.state === 'failed') throw new ApiError(0, `${done.name}: ${done.reason ?? 'failed'}`);
}

/** Say that values of an answer were decoded, and how far off they may be; those of integers are exact. */
function decoded({ decoded: names, error_bound: bound }) {
  const exact = bound ? `right within ${bound.toExponential(1)}, not bit for bit` : 'exactly, bit for bit';
  return names?.length ? `; ${names.join(', ')} decoded: ${exact}` : '';
}

function sentence(job) {
  if (!job) return 'Nothing was run yet.';
  if (job.state === 'failed') return `${job.name}: failed. ${job.reason ?? ''}`;
  if (job.state === 'cancelled') return `${job.name}: cancelled.`;
  if (job.state === 'done') return `${job.name}: ${time(job.seconds)}${exitOf(job)}${decoded(job)}`;
  return `${job.name}: ${job.state} …`;
}

/** How to show a score: probabilities in percent, other scores as they are, with a full bar for the best. */
function scale(top) {
  const likely = top.every(({ score }) => score !== null && score >= 0 && score <= 1);
  const best = Math.max(...top.map(({ score }) => Math.abs(score)), 1e-30);
  return likely
    ? ({ score }) => ({ part: score, text: `${(score * 100).toFixed(1)} %` })
    : ({ score }) => ({ part: Math.max(0, score / best), text: score?.toPrecision(4) ?? 'not a number' });
}

function draw() {
  const job = chosenJob();
  setText($('job-state'), sentence(job));
  setClass($('job-state'), 'problem', job?.state === 'failed');
  setText($('job-blocked'), job?.blocked ? `Nobody can compute it now: ${job.blocked}.` : '');
  setHidden($('job-cancel'), !['waiting', 'running'].includes(job?.state));
  setHidden($('preview'), !picture.address || cameraRuns() || ![job, job?.id].includes(picture.of));
  if (cameraRuns() && job && !finished(job)) return; // between two frames, the last answer stays
  const top = (job?.top ?? []).slice(0, 5);
  const shown = scale(top);
  keyed(
    $('top5'),
    top.map((each, rank) => ({ ...each, rank })),
    ({ rank }) => rank,
    makeBar,
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
  button($('job-cancel'), () => call('DELETE', path('jobs', chosenJob().id)));
  setUpCamera(submit, finish);
  changed('jobs');
}
