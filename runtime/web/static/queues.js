// Draws each board's queue in the last minute as a small histogram, and what becomes of the runs of steps.

import { $, el, keyed, setAttribute, setHidden, setStyle, setText } from './dom.js';
import { rate } from './format.js';

const BINS = 11;

export function makeQueue() {
  const bars = Array.from({ length: BINS }, () => el('span'));
  const node = el('div', { class: 'queue-bars', role: 'img' }, ...bars);
  node.bars = bars;
  return node;
}

/** The mean of a histogram whose last bin is open. */
function meanOf(counts, total) {
  return counts.reduce((found, count, inputs) => found + count * inputs, 0) / total;
}

export function drawQueue(node, { queues }) {
  const total = queues.reduce((found, count) => found + count, 0);
  setHidden(node, total === 0);
  if (!total) return;
  const most = Math.max(...queues);
  node.bars.forEach((bar, inputs) => setStyle(bar, 'transform', `scaleY(${((queues[inputs] ?? 0) / most).toFixed(3)})`));
  const mean = meanOf(queues, total).toFixed(1);
  const text = `Inputs at this board or waiting for it in the last minute, from 0 to 10 and more: ${mean} on average`;
  setAttribute(node, 'aria-label', text);
  setAttribute(node, 'title', text);
}

function sentenceOf({ ago_s, before_per_s, after_per_s, predicted_per_s }) {
  const after = after_per_s === null ? 'not measured yet' : `${rate(after_per_s)} /s after`;
  return `${Math.round(ago_s)} s ago: ${rate(before_per_s)} answers /s before, ${after}; ${rate(predicted_per_s)} /s predicted`;
}

export function drawRebalancing(rebalancing) {
  setHidden($('rebalancing'), !rebalancing || rebalancing.mode === 'off');
  if (!rebalancing) return;
  const { mode, reason, present_per_s, best_per_s, bottleneck, phase, moves } = rebalancing;
  const figures = best_per_s
    ? `${rate(present_per_s)} /s now, ${rate(best_per_s)} /s at best, ${bottleneck} is the busiest`
    : 'not measured yet';
  const moving = phase ? `, steps move (${phase})` : '';
  setText($('rebalancing-now'), `Rebalancing ${mode}: ${figures}${moving}`);
  setText($('rebalancing-reason'), reason);
  keyed(
    $('rebalancing-moves'),
    moves.map((move, number) => ({ move, number })),
    ({ number }) => number,
    () => el('li'),
    (item, { move }) => setText(item, sentenceOf(move)),
  );
}
