// Draws a card for each board: its memory, rates and steps, and whether it is connected; and the overview at the top.

import { call, path } from './api.js';
import { drawCodes } from './codes.js';
import { drawExits } from './exits.js';
import { $, el, keyed, setAttribute, setClass, setHidden, setStyle, setText } from './dom.js';
import { count, gmacs, joules, listed, mb, rate, steps, time } from './format.js';
import { button } from './messages.js';
import { drawQueue, drawRebalancing, makeQueue } from './queues.js';
import { cameFrom } from './moves.js';
import { changed, hueOf, isGone, seenSeconds, state, watch } from './state.js';

const TICK_MS = 200;

function fact(name, key, parts) {
  parts[key] = el('dd');
  return el('div', {}, el('dt', {}, name), parts[key]);
}

function makeCard(worker) {
  const parts = {};
  const bar = el('div', { class: 'meter', role: 'img' }, (parts.used = el('span', { class: 'used' })));
  parts.bar = bar;
  parts.drain = button(el('button', { type: 'button', 'data-action': 'drain' }), () =>
    call(parts.drained ? 'DELETE' : 'PUT', `${path('workers', worker.name)}/drain`),
  );
  const facts = el(
    'dl',
    { class: 'facts small' },
    fact('Speed', 'speed', parts),
    fact('Answers', 'answers', parts),
    fact('Seen', 'seen', parts),
    fact('Queue', 'queue', parts),
    fact('Leases', 'leases', parts),
    fact('Power', 'power', parts),
  );
  const card = el(
    'li',
    { class: 'board', 'data-worker': worker.name },
    el(
      'div',
      { class: 'board-head' },
      el('span', { class: 'swatch', 'aria-hidden': 'true' }),
      el('h3', {}, worker.name),
      (parts.badge = el('span', { class: 'badge' })),
    ),
    el('div', { class: 'meter-row' }, bar, (parts.memory = el('span', { class: 'meter-text' }))),
    el('div', { class: 'board-facts' }, facts, parts.drain),
    (parts.bars = makeQueue()),
    (parts.problem = el('p', { class: 'problem' })),
    (parts.shares = el('ul', { class: 'held', 'aria-label': `Steps on ${worker.name}` })),
  );
  card.style.setProperty('--hue', hueOf(worker.name));
  card.parts = parts;
  return card;
}

/** The state of a board in a word; the worst one counts. */
function wordOf(worker, gone) {
  if (gone) return 'gone';
  if (worker.set_aside) return 'set aside';
  if (worker.drained) return 'drained';
  return worker.loading.length ? 'loading' : 'online';
}

const seenText = (s) =>
  s < 10 ? `${s.toFixed(1)} s ago` : s < 120 ? `${Math.round(s)} s ago` : `${Math.round(s / 60)} min ago`;

function updateCard(card, { worker, shares, power }) {
  const { parts } = card;
  const gone = isGone(worker);
  const word = wordOf(worker, gone);
  setClass(card, 'gone', gone);
  setText(parts.badge, word);
  setAttribute(parts.badge, 'data-word', word);
  const used = worker.memory_bytes ? Math.min(1, worker.resident_bytes / worker.memory_bytes) : 0;
  setStyle(parts.used, 'transform', `scaleX(${used.toFixed(3)})`);
  setClass(parts.used, 'tight', used > 0.95);
  const memory = `${mb(worker.resident_bytes)} of ${mb(worker.memory_bytes)} MB`;
  setText(parts.memory, memory);
  setAttribute(parts.bar, 'aria-label', `Memory: ${memory}`);
  setText(parts.speed, `${gmacs(worker.macs_per_s)} GMAC/s`);
  setText(parts.answers, `${rate(worker.computed_per_s)} /s`);
  setText(parts.queue, String(worker.queue));
  setText(parts.leases, String(worker.leases));
  drawQueue(parts.bars, worker);
  setText(parts.seen, seenText(seenSeconds(worker)));
  setHidden(parts.power.parentElement, !power);
  setText(parts.power, power ? `${power.watts.toFixed(2)} W` : '');
  setAttribute(parts.power, 'title', power ? `${power.idle_watts.toFixed(2)} W idle; ${power.source}` : '');
  setText(
    parts.problem,
    [worker.problem, worker.group > 1 ? `a group of ${worker.group} boards` : ''].filter(Boolean).join('; '),
  );
  parts.drained = worker.drained;
  setHidden(parts.drain, gone);
  setText(parts.drain, worker.drained ? 'Undrain' : 'Drain');
  setAttribute(parts.drain, 'aria-label', `${worker.drained ? 'Undrain' : 'Drain'} ${worker.name}`);
  setAttribute(
    parts.drain,
    'title',
    worker.drained ? 'Let it hold steps again' : 'Move its steps to other boards, and give it no more',
  );
  keyed(
    parts.shares,
    shares,
    ({ share }) => share.number,
    () => el('li', { class: 'share' }),
    (item, { share, how }) => {
      const from = cameFrom(share, worker.name);
      setClass(item, 'moved', from !== null);
      setAttribute(item, 'data-how', how);
      const origin = from?.length ? `, from ${from.join(', ')}` : '';
      const waiting = share.waiting ? `, ${share.waiting} waiting` : '';
      const seconds = share.service_s[worker.name];
      const took = seconds === undefined ? '' : `, ${time(seconds)}`;
      const dealt = share.dealt ? ', inputs dealt out' : '';
      setText(item, `${steps(share.start, share.stop)}: ${how}${took}${dealt}${origin}${waiting}`);
    },
  );
}

/** The sub-bundles of each board, each with its state there. */
function heldBy(shares) {
  const held = new Map();
  for (const share of shares)
    for (const [name, how] of Object.entries(share.homes)) {
      if (!held.has(name)) held.set(name, []);
      held.get(name).push({ share, how });
    }
  return held;
}

let goneBefore = null;

/** Announce to screen readers that a board is gone or back, which others see by its colour. */
function announce(workers) {
  const gone = new Set(workers.filter(isGone).map(({ name }) => name));
  const changes = [];
  for (const { name } of goneBefore ? workers : []) {
    if (gone.has(name) && !goneBefore.has(name)) changes.push(`board ${name} is gone`);
    if (!gone.has(name) && goneBefore.has(name)) changes.push(`board ${name} is back`);
  }
  goneBefore = gone;
  if (changes.length) setText($('gone'), changes.join('; '));
  setText($('online'), `${workers.length - gone.size} of ${workers.length} online`);
}

function draw() {
  if (!state.status) return;
  const { workers, shares } = state.status;
  const held = heldBy(shares);
  const powers = new Map((state.status.energy?.boards ?? []).map((board) => [board.name, board]));
  const items = workers.map((worker) => ({
    worker,
    shares: held.get(worker.name) ?? [],
    power: powers.get(worker.name),
  }));
  keyed(
    $('boards'),
    items,
    ({ worker }) => worker.name,
    ({ worker }) => makeCard(worker),
    updateCard,
  );
  setHidden($('no-boards'), workers.length > 0);
  announce(workers);
}

/** While nothing is served, the model comes first: it is what the operator needs next. */
function arrange(idle) {
  const [boards, model] = [$('boards-section'), $('model-section')];
  const first = idle ? model : boards;
  if (first.parentElement.firstElementChild !== first) first.parentElement.insertBefore(boards, idle ? null : model);
}

/** The energy of an inference on all boards, each with the source of its figures as the hint. */
function drawEnergy(energy) {
  setHidden($('energy-fact'), !energy);
  if (!energy) return;
  const watts = `${energy.watts.toFixed(2)} W, ${energy.idle_watts.toFixed(2)} W idle`;
  const { static_joules: still, dynamic_joules: moving } = energy;
  const each = still === null ? '' : `${joules(still)} static + ${joules(moving)} dynamic an inference; `;
  setText($('energy'), each + watts);
  const sources = energy.boards.map(({ name, source }) => `${name}: ${source}`);
  if (energy.unknown.length) sources.push(`not known: ${listed(energy.unknown)}`);
  setAttribute($('energy'), 'title', sources.join('; '));
}

function drawOverview() {
  const { status } = state;
  if (!status) return;
  setText($('state'), status.state);
  setText($('served'), status.bundle ? `${status.bundle}${status.model ? ` (${status.model})` : ''}` : 'none');
  setText($('hub'), status.hub ? 'connected' : 'not connected');
  setClass($('hub'), 'problem', !status.hub);
  setText($('under-way'), count(status.jobs, 'job'));
  setText($('answered'), `${status.answered}, ${rate(status.answered_per_s)} /s`);
  drawEnergy(status.energy);
  setText($('status-problem'), status.problem ?? '');
  drawRebalancing(status.rebalancing);
  drawCodes(status.codes);
  drawExits(status.exits);
  setHidden($('next-step'), status.bundle !== null);
  arrange(status.bundle === null);
}

export function setUpBoards() {
  watch(['status', 'moves', 'tick'], draw);
  watch(['status'], drawOverview);
  setInterval(() => changed('tick'), TICK_MS);
}
