// The partitions of a plan, of a bundle, or of what is served on the boards: a choice, a summary, a graph, a table.

import { call, path } from './api.js';
import { $, el, keyed, roving, setAttribute, setHidden, setOptions, setStyle, setText } from './dom.js';
import { clock, count, mb, time } from './format.js';
import { choose, drawGraph, setUpGraph } from './graph.js';
import { say } from './messages.js';
import { changed, newestFirst, state, watch } from './state.js';

const SERVED = 'served';
let source = null; // served | build:ID | bundle:NAME; null: nothing was chosen yet
const fetched = new Map(); // bundle -> {stamp, detail}

export function showPlan(key) {
  source = key;
  changed('plan');
}

const labelOf = ({ dry_run: dryRun, model, plan, began_at: began }) =>
  `${dryRun ? 'Plan' : 'Build'}: ${model}, ${mb(plan.budget_bytes)} MB, ${clock(began)}`;

function options() {
  const found = [];
  if (state.status?.bundle) found.push({ value: SERVED, label: `Served now: ${state.status.bundle}` });
  for (const build of [...state.builds.values()].sort(newestFirst))
    if (build.plan)
      found.push({
        value: `build:${build.id}`,
        label: labelOf(build),
      });
  for (const { name } of state.bundles) found.push({ value: `bundle:${name}`, label: `Bundle: ${name}` });
  return found;
}

/** A bundle's partitions, or null while they are on their way. */
function detailOf(name) {
  const known = state.bundles.find((bundle) => bundle.name === name);
  const stamp = JSON.stringify([known?.model, known?.size_bytes, known?.steps, known?.budget_bytes]);
  const entry = fetched.get(name);
  if (entry?.stamp === stamp) return entry.detail;
  const wanted = { stamp, detail: null };
  fetched.set(name, wanted);
  call('GET', path('bundles', name)).then(
    (detail) => {
      wanted.detail = detail;
      changed('plan');
    },
    (error) => {
      if (error.status !== 401) say(error.message);
      setTimeout(() => fetched.get(name) === wanted && fetched.delete(name), 5000); // then it may be asked again
    },
  );
  return null;
}

/** Which boards hold each step. */
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
      `the whole model at once would take ${mb(plan.whole_peak_bytes)} MB`,
      `least budget possible ${mb(plan.smallest_budget_bytes)} MB`,
    );
    parts.push(`estimated ${time(plan.latency_s)} for one input`);
    parts.push(
      plan.exact
        ? "the network's own result, bit for bit"
        : `not bit for bit: ${plan.inexact_reason ?? 'the last bits may differ'}`,
    );
  }
  if (homes) parts.push('colours and labels in the graph are the boards');
  return `${parts.join('; ')}.`;
}

function makeBar() {
  const spans = ['weights', 'activations', 'rest'].map((kind) => el('span', { class: kind }));
  const text = el('span', { class: 'meter-text' });
  const bar = el('span', { class: 'meter', 'aria-hidden': 'true' }, ...spans);
  return Object.assign(el('span', { class: 'meter-row' }, bar, text), { parts: { spans, text } });
}

/** The peak of a partition against what there is: its weights, its activations, and the rest of the process. */
function updateBar(row, partition, limit, board) {
  const { weight_bytes: weights, activation_bytes: activations, peak_bytes: peak } = partition;
  const share = [weights, activations, Math.max(0, peak - weights - activations)];
  const scale = Math.min(1, limit / peak) / Math.max(limit, 1);
  row.parts.spans.forEach((span, index) =>
    setStyle(span, 'width', `${Math.min(100, share[index] * scale * 100).toFixed(2)}%`),
  );
  setText(
    row.parts.text,
    `${mb(peak)} of ${mb(limit)}${board ? ` on ${board}` : ''}${peak > limit ? ', too much' : ''}`,
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
    el('td', { class: 'reason' }, partition.reason),
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
let drawn = null; // what the last drawing showed: a status comes ten times a second and seldom changes a plan

function draw() {
  const found = options();
  setOptions($('plan-source'), found.length ? found : [{ value: '', label: 'nothing yet' }]);
  if (!found.some(({ value }) => value === source)) source = null;
  const key = source ?? found[0]?.value;
  setHidden($('plan-view'), !key);
  if (!key) {
    setText($('plan-summary'), 'Choose a model and press "Show plan".');
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
  const colours = view.homes ? 'Each colour is a board.' : 'Each partition has its colour.';
  setText(
    $('graph-hint'),
    `Arrows are the tensors between partitions. ${colours} Arrow keys go from node to node, Enter shows one.`,
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
