// Notices when steps move from one board to another, and says so in a line.

import { $, setText } from './dom.js';
import { listed, steps } from './format.js';
import { changed, onEvent } from './state.js';

const SHOWN_MS = 6000;

let bundle = null;
const homes = new Map(); // step -> the boards that held it last, sorted
const recent = new Map(); // "step board" -> {from: names, until: a time of performance.now()}

const holders = (share) =>
  Object.entries(share.homes)
    .filter(([, how]) => how !== 'lost')
    .map(([name]) => name)
    .sort();

const without = (names, others) => names.filter((name) => !others.includes(name));

/** The changes since the last status, [{start, stop, from, to}]; neighbouring steps are merged. */
function compare(shares) {
  const moves = [];
  const held = new Map(); // while steps move, old and new sub-bundles hold the same ones
  for (const share of shares)
    for (let step = share.start; step < share.stop; step++)
      held.set(step, [...new Set([...(held.get(step) ?? []), ...holders(share)])].sort());
  for (const share of shares) {
    for (let step = share.start; step < share.stop; step++) {
      const now = held.get(step);
      if (!now.length) continue;
      const before = homes.get(step);
      homes.set(step, now);
      if (!before || before.join() === now.join()) continue;
      const move = { start: step, stop: step + 1, from: without(before, now), to: without(now, before) };
      const last = moves.at(-1);
      const continues =
        last?.stop === step && last.from.join() === move.from.join() && last.to.join() === move.to.join();
      if (continues) last.stop = step + 1;
      else moves.push(move);
    }
  }
  return moves;
}

function sentence({ start, stop, from, to }) {
  const what = steps(start, stop);
  if (from.length && to.length) return `${what} moved from ${listed(from)} to ${listed(to)}`;
  return to.length ? `${what} now also on ${listed(to)}` : `${what} no longer on ${listed(from)}`;
}

/** The boards that a sub-bundle came from in the last seconds, or null. */
export function cameFrom(share, worker) {
  const now = performance.now();
  for (let step = share.start; step < share.stop; step++) {
    const move = recent.get(`${step} ${worker}`);
    if (move && move.until > now) return move.from;
  }
  return null;
}

export function setUpMoves() {
  onEvent('status', (status) => {
    if (status.bundle !== bundle) {
      bundle = status.bundle;
      homes.clear();
      recent.clear();
    }
    const moves = compare(status.shares);
    if (!moves.length) return;
    const until = performance.now() + SHOWN_MS;
    for (const { start, stop, from, to } of moves)
      for (let step = start; step < stop; step++)
        for (const name of to) recent.set(`${step} ${name}`, { from, until });
    const time = new Date().toLocaleTimeString([], { hour12: false });
    setText($('moved'), `${time}: ${moves.map(sentence).join('; ')}`);
    setTimeout(() => changed('moves'), SHOWN_MS + 50);
  });
}
