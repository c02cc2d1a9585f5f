// Shows the partitions of a plan, a bundle, or the bundle that is served: a summary, a graph and a table.

import { call, path } from './api.js';
import { $, el, keyed, roving, setAttribute, setHidden, setOptions, setStyle, setText } from './dom.js';
import { clock, count, mb, reasonOf, time } from './format.js';
import { choose, drawGraph, setUpGraph } from './graph.js';
import { say } from './messages.js';
import { changed, newestFirst, state, watch } from './state.js';

const SERVED = 'served';
let source = null; // served | build:ID | bundle:NAME; null: the first of the list
const fetched = new Map(); // bundle -> {stamp, detail}

export function showPlan(key) {
  source = key;
  changed('plan');
}

const labelOf = ({ dry_run: dryRun, model, plan, began_at: began }) =>
  `${dryRun ? 'Plan' : 'Build'}: ${model}, ${mb(plan.budget_bytes)} MB, ${clock(began)}`;

function options() {
  const choices = [];
  if (state.status?.bundle) choices.push({ value: SERVED, label: `Served now: ${state.status.bundle}` });
  for (const build of [...state.builds.values()].sort(newestFirst))
    if (build.plan)
      choices.push({
        value: `build:${build.id}`,
        label: labelOf(build),
      });
  for (const { name } of state.bundles) choices.push({ value: `bundle:${name}`, label: `Bundle: ${name}` });
  return choices;
}

/** A bundle with its partitions, or null until they have been fetched. */
function detailOf(name) {
  const known = state.bundles.find((bundle) => bundle.name === name);
  const stamp = JSON.stringify([known?.model, known?.size_bytes, known?.steps, known?.budget_bytes]);
  const entry = fetched.get(name);
  if (entry?.stamp === stamp) return entry.detail;
  const request = { stamp, detail: null };
  fetched.set(name, request);
  call('GET', path('bundles', name)).then(
    (detail) => {
      request.detail = detail;
      changed('plan');
    },
    (error) => {
      if (error.status !== 401) say(error.message);
      setTimeout(() => fetched.get(name) === request && fetched.delete(name), 5000); // then it is fetched again
    },
  );
  return null;
}

/** The boards that hold each step. */
function homesOf(size) {
  const homes = Array.from({ length: size }, () => []);
  for (const { start, stop, homes: where } of state.status.shares) {
    const names = Object.keys(where)
      .filter((name) => where[name] !== 'lost')
      .sort();
    for (let step = start; step < Math.min(stop, size); step++) homes[step] = names;
  }
  return homes;
}

function viewOf(key) {
  if (key.startsWith('build:')) {
    const { plan } = state.builds.get(key.slice('build:'.length));
    return { key, partitions: plan.partitions, budget: plan.budget_bytes, homes: null, plan };
  }
  const served = key === SERVED;
  const name = served ? state.status.bundle : key.slice('bundle:'.length);
  const detail = detailOf(name);
  if (!detail) return null;
  const { partitions, budget_bytes: budget } = detail;
  return {
    key: `${key} ${fetched.get(name).stamp}`,
    partitions,
    budget,
    homes: served ? homesOf(partitions.length) : null,
    plan: null,
  };
}

function summary({ partitions, budget, plan, homes }) {
  const peak = Math.max(...partitions.map((partition) => partition.peak_bytes));
  const parts = [
    `${count(partitions.length, 'partition')}; peak ${mb(plan?.peak_bytes ?? peak)} of ${mb(budget)} MB`,
  ];
  if (plan) {
    parts.push(
      `the whole model would need ${mb(plan.whole_peak_bytes)} MB`,
      `smallest budget ${mb(plan.smallest_budget_bytes)} MB`,
    );
    parts.push(`about ${time(plan.latency_s)} for one input, estimated`);
    parts.push(
      plan.exact
        ? 'the same result as the whole model, bit for bit'
        : `the last bits of the result may differ${plan.inexact_reason ? `: ${plan.inexact_reason}` : ''}`,
    );
  }
  return `${parts.join('; ')}.`;
}

function makeBar() {
  const spans = ['weights', 'activations', 'rest'].map((kind) => el('span', { class: kind }));
  const text = el('span', { class: 'meter-text' });
  const bar = el('span', { class: 'meter', 'aria-hidden': 'true' }, ...spans);
  return Object.assign(el('span', { class: 'meter-row' }, bar, text), { parts: { spans, text } });
}

/** Draw a partition's peak against a limit: its weights, its activations, and the rest of the process. */
function updateBar(row, partition, limit, board) {
  const { weight_bytes: weights, activation_bytes: activations, peak_bytes: peak } = partition;
  const parts = [weights, activations, Math.max(0, peak - weights - activations)];
  const scale = Math.min(1, limit / peak) / Math.max(limit, 1);
  row.parts.spans.forEach((span, index) =>
    setStyle(span, 'width', `${Math.min(100, parts[index] * scale * 100).toFixed(2)}%`),
  );
  setText(
    row.parts.text,
    `${mb(peak)} of ${mb(limit)}${board ? ` on ${board}` : ''}${peak > limit ? ', too large' : ''}`,
  );
}

function makeRow(partition, index) {
  const number = (value) => el('td', { class: 'number' }, value);
  const bars = el('td', { class: 'bars' });
  const name = el(
    'button',
    { type: 'button', class: 'link', tabindex: '-1', onclick: () => choose(index) },
    partition.name,
  );
  const row = el(
    'tr',
    { 'data-step': index },
    el('td', { class: 'number' }, String(index)),
    el('th', { scope: 'row' }, name),
    number(String(partition.operators.length)),
    ...[partition.weight_bytes, partition.activation_bytes, partition.peak_bytes].map((bytes) => number(mb(bytes))),
    bars,
    number(mb(partition.leaving_bytes)),
    el('td', { class: 'reason' }, reasonOf(partition)),
  );
  row.parts = { bars };
  return row;
}

function drawTable(view) {
  const memory = new Map((state.status?.workers ?? []).map((worker) => [worker.name, worker.memory_bytes]));
  const items = view.partitions.map((partition, index) => ({ partition, index }));
  keyed(
    $('plan-table').tBodies[0],
    items,
    ({ index }) => `${view.key} ${index}`,
    ({ partition, index }) => makeRow(partition, index),
    (row, { partition, index }) => {
      const homes = view.homes?.[index] ?? [];
      const against = homes.length
        ? homes.map((name) => ({ board: name, limit: memory.get(name) ?? view.budget }))
        : [{ board: null, limit: view.budget }];
      keyed(
        row.parts.bars,
        against,
        ({ board }) => board ?? '',
        makeBar,
        (bar, { board, limit }) => updateBar(bar, partition, limit, board),
      );
    },
  );
}

let keepTabStop = () => {};
let drawn = null; // the signature of the last drawing: a status comes ten times a second and seldom changes a plan

function draw() {
  const choices = options();
  setOptions($('plan-source'), choices.length ? choices : [{ value: '', label: 'nothing yet' }]);
  if (!choices.some(({ value }) => value === source)) source = null;
  const key = source ?? choices[0]?.value;
  setHidden($('plan-view'), !key);
  if (!key) {
    setText($('plan-summary'), 'Upload a model and press "Show plan" to see how it is cut.');
    return;
  }
  if ($('plan-source').value !== key) $('plan-source').value = key;
  const view = viewOf(key);
  if (!view) return;
  const boards = view.homes ? state.status.workers.map(({ name, memory_bytes }) => [name, memory_bytes]) : null;
  const signature = JSON.stringify([view.key, view.homes, boards, $('graph').clientWidth]);
  if (signature === drawn) return;
  drawn = signature;
  setText($('plan-summary'), summary(view));
  const colours = view.homes ? 'Colours and labels name the boards.' : 'Labels are the peaks.';
  setText(
    $('graph-hint'),
    `Each box is a partition, each arrow the tensors between two. ${colours} Choose one for its details.`,
  );
  setAttribute($('graph'), 'data-view', view.homes ? 'served' : 'plan');
  drawGraph(view);
  drawTable(view);
  keepTabStop();
}

export function setUpPlan() {
  setUpGraph(() => changed('plan'));
  keepTabStop = roving($('plan-table').tBodies[0], 'button');
  watch(['plan', 'status', 'builds', 'library'], draw);
  $('plan-source').addEventListener('change', () => showPlan($('plan-source').value));
}
