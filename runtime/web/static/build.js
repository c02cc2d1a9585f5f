// Compiles a model: the form, the compilation under way, and its result.

import { ApiError, call, path } from './api.js';
import { $, setDisabled, setHidden, setOptions, setText } from './dom.js';
import { count, mb, time } from './format.js';
import { act, button, careful } from './messages.js';
import { changed, isGone, newestFirst, onEvent, state, take, watch } from './state.js';
import { showPlan } from './plan.js';
import { setUpUpload } from './upload.js';

let current = null; // the id of the build that #build-state shows
let mine = null; // the id of the build that this page started: its plan is shown once it is done
let uploaded = null; // a model that was just uploaded, to be chosen once the library lists it

function smallestBoard() {
  const online = (state.status?.workers ?? []).filter((worker) => !isGone(worker));
  return online.length ? Math.min(...online.map((worker) => worker.memory_bytes)) : null;
}

/** The request that the form describes. */
function requestOf(dryRun) {
  const kind = document.querySelector('input[name=for]:checked').value;
  const budget = Number($('budget').value);
  if (kind === 'budget' && !(budget > 0)) throw new ApiError(0, 'Enter the budget in MB.');
  if (kind === 'target' && !$('target').value) throw new ApiError(0, 'Choose a kind of board.');
  if (kind === 'workers' && smallestBoard() === null) throw new ApiError(0, 'No board is connected. Start hyps-worker on one, or choose a kind of board.');
  const name = $('bundle-name').value.trim();
  if (!$('bundle-name').checkValidity())
    throw new ApiError(0, 'A bundle\'s name has only letters, digits, dots, hyphens and underscores.');
  return {
    target: kind === 'target' ? $('target').value : null,
    memory_bytes: kind === 'budget' ? Math.round(budget * 1e6) : null,
    workers: kind === 'workers',
    split: $('split').value,
    preprocess: $('preprocess').value || null,
    dry_run: dryRun,
    bundle: name || null,
  };
}

async function start(dryRun) {
  const model = $('model').value;
  if (!model) throw new ApiError(0, 'Upload a model first.');
  const build = await call('POST', `${path('models', model)}/builds`, { json: requestOf(dryRun) });
  current = mine = build.id;
  take('build', state.builds.get(build.id) ?? build); // an event may have come first
}

function sentence(build) {
  const { model, message, plan, dry_run: dryRun } = build;
  if (build.state === 'cancelled') return `${model}: cancelled.`;
  if (build.state === 'running') return `${dryRun ? 'Planning' : 'Compiling'} ${model} … ${message ?? ''}`;
  if (build.state === 'failed') return `${model}: ${dryRun ? 'not planned' : 'not compiled'}. ${message ?? ''}`;
  const sentences = [`${model}: ${dryRun ? 'planned' : `bundle ${build.bundle} compiled`} in ${time(build.seconds)}.`];
  if (plan) {
    const size = count(plan.partitions.length, 'partition');
    sentences.push(`${size}, peak ${mb(plan.peak_bytes)} of ${mb(plan.budget_bytes)} MB.`);
  }
  if (message) sentences.push(message);
  return sentences.join(' ');
}

function drawBuild() {
  const running = [...state.builds.values()].filter((build) => build.state === 'running').sort(newestFirst);
  const build = state.builds.get(current) ?? running[0];
  setHidden($('build-cancel'), build?.state !== 'running');
  if (!build) return;
  current = build.id;
  setText($('build-state'), sentence(build));
  $('build-state').dataset.state = build.state;
}

function drawModels() {
  const names = state.models.map(({ name }) => name);
  const label = ({ name, size_bytes, files }) =>
    `${name} (${mb(size_bytes)} MB${files.length > 1 ? `, ${files.length} files` : ''})`;
  const options = state.models.map((model) => ({ value: model.name, label: label(model) }));
  setOptions($('model'), options.length ? options : [{ value: '', label: 'none yet' }]);
  if (uploaded && names.includes(uploaded)) {
    $('model').value = uploaded;
    uploaded = null;
  }
  for (const id of ['model-delete', 'show-plan', 'compile']) setDisabled($(id), !names.length);
}

function drawTargets() {
  const board = ({ name, title, budget_bytes }) => ({
    value: name,
    label: `${title || name}: ${mb(budget_bytes)} MB`,
  });
  setOptions($('target'), state.targets.map(board));
}

function drawSmallest() {
  const bytes = smallestBoard();
  setText($('smallest'), bytes === null ? 'no board is connected' : `the smallest has ${mb(bytes)} MB`);
}

function whenChanged(build) {
  if (build.id === mine && build.state === 'done' && build.plan) showPlan(`build:${build.id}`);
}

export function setUpBuild() {
  watch(['builds'], drawBuild);
  watch(['library'], drawModels);
  watch(['targets'], drawTargets);
  watch(['status', 'tick'], drawSmallest);
  onEvent('build', whenChanged);
  for (const [field, kind] of [
    ['target', 'change'],
    ['budget', 'input'],
  ])
    $(field).addEventListener(kind, () => ($(`for-${field}`).checked = true));
  $('build-form').addEventListener('submit', (event) => {
    event.preventDefault();
    act(() => start(true));
  });
  button($('compile'), () => start(false));
  button($('build-cancel'), () => call('DELETE', path('builds', current)));
  careful($('model-delete'), 'Delete it and its files?', () => call('DELETE', path('models', $('model').value)));
  setUpUpload(
    () => $('model').value,
    (model) => {
      uploaded = model;
      changed('library');
    },
  );
}
