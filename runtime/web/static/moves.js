// Notices when steps go from one board to another, and says so in a line.

import { $, setText } from './dom.js';
import { listed, steps } from './format.js';
import { changed, onEvent } from './state.js';

const SHOWN_MS = 6000;

let bundle = null;
const homes = new Map(); // step -> the boards that held it last, sorted; while it has none, those before
const fresh = new Map(); // "step board" -> {from: names, until: performance.now()}

const holders = (share) =>
  Object.entries(share.homes)
    .filter(([, how]) => how !== 'lost')
    .map(([name]) => name)
    .sort();

const without = (names, others) => names.filter((name) => !others.includes(name));

/** What changed since the last status: [{start, stop, from, to}], neighbouring steps together. */
function compare(shares) {
  const moves = [];
  for (const share of shares) {
    const now = holders(share);
    if (!now.length) continue;
    for (let step = share.start; step < share.stop; step++) {
      const before = homes.get(step);
      homes.set(step, now);
      if (!before || before.join() === now.join()) continue;
      const move = { start: step, stop: step + 1, from: without(before, now), to: without(now, before) };
      const last = moves.at(-1);
      const goesOn =
        last?.stop === step && last.from.join() === move.from.join() && last.to.join() === move.to.join();
      if (goesOn) last.stop = step + 1;
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

/** The boards that the steps came from within the last seconds, or null. */
export function cameFrom(share, worker) {
  const now = performance.now();
  for (let step = share.start; step < share.stop; step++) {
    const found = fresh.get(`${step} ${worker}`);
    if (found && found.until > now) return found.from;
  }
  return null;
}

export function setUpMoves() {
  onEvent('status', (status) => {
    if (status.bundle !== bundle) {
      bundle = status.bundle;
      homes.clear();
      fresh.clear();
    }
    const moves = compare(status.shares);
    if (!moves.length) return;
    const until = performance.now() + SHOWN_MS;
    for (const { start, stop, from, to } of moves)
      for (let step = start; step < stop; step++)
        for (const name of to) fresh.set(`${step} ${name}`, { from, until });
    const time = new Date().toLocaleTimeString([], { hour12: false });
    setText($('moved'), `${time}: ${moves.map(sentence).join('; ')}`);
    setTimeout(() => changed('moves'), SHOWN_MS + 50);
  });
}
