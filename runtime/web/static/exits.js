// Shows which exits answered, as a histogram, and what came of the rests that were offloaded.

import { $, el, keyed, setHidden, setStyle, setText } from './dom.js';

const total = (counts) => Object.values(counts).reduce((sum, count) => sum + count, 0);

/** Make a line with a name, a bar, and a figure. */
export function makeBar() {
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

/** Say which exit answered a job, and which tier computed the rest. */
export function exitOf({ exit }) {
  if (!exit) return '';
  const skipped = exit.steps_not_run ? `, ${exit.steps_not_run} ${exit.steps_not_run === 1 ? 'step' : 'steps'} not run` : '';
  const at = exit.at ? `, the rest computed by ${exit.at}` : '';
  return `; exit ${exit.number} of ${exit.count}, ${exit.output}, ${(exit.confidence * 100).toFixed(1)} % sure${skipped}${at}`;
}

export function drawExits(exits) {
  setHidden($('exits'), !exits);
  if (!exits) return;
  const counts = Object.entries(exits.answered);
  const all = total(exits.answered);
  const early = all - (counts.at(-1)?.[1] ?? 0);
  setText($('exits-now'), all ? `Exits: ${early} of ${all} answers before the last exit` : 'Exits: nothing was answered yet');
  keyed(
    $('exits-bars'),
    counts,
    ([name]) => name,
    makeBar,
    ({ parts }, [name, count]) => {
      setText(parts.name, name);
      setStyle(parts.bar, 'transform', `scaleX(${(count / Math.max(1, ...counts.map(([, each]) => each))).toFixed(3)})`);
      setText(parts.score, String(count));
    },
  );
  const parts = Object.entries(exits.offloaded).map(([tier, count]) => `${count} offloaded to ${tier}`);
  if (exits.fell_back) parts.push(`${exits.fell_back} went up in vain and were computed here`);
  if (total(exits.begun)) parts.push(`${total(exits.begun)} came from devices that had begun them`);
  setText($('exits-offloads'), parts.join('; '));
  setHidden($('exits-offloads'), !parts.length);
}
