// Formats numbers and steps as text. 1 MB is 10^6 bytes, as everywhere in HyPS.

export function mb(bytes) {
  const value = bytes / 1e6;
  if (value === 0) return '0';
  return value < 0.095 ? value.toPrecision(1) : value.toFixed(1);
}

export function time(seconds) {
  if (seconds === null || seconds === undefined) return '…';
  const ms = seconds * 1000;
  if (ms < 10) return `${ms.toFixed(2)} ms`;
  if (ms < 1000) return `${ms.toFixed(1)} ms`;
  return `${seconds.toFixed(2)} s`;
}

export function rate(perSecond) {
  if (!perSecond) return '0';
  return perSecond < 10 ? perSecond.toFixed(1) : perSecond.toFixed(0);
}

export function gmacs(macsPerS) {
  if (!macsPerS) return '?'; // not measured yet
  const value = macsPerS / 1e9;
  return value.toFixed(value < 1 ? 2 : value < 100 ? 1 : 0);
}

export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

/** Joules, or millijoules below one. */
export const joules = (value) => (Math.abs(value) < 1 ? `${(value * 1000).toFixed(1)} mJ` : `${value.toFixed(2)} J`);

/** Steps start..stop-1 in words: "step 3", "steps 3 to 7". */
export const steps = (start, stop) => (stop - start === 1 ? `step ${start}` : `steps ${start} to ${stop - 1}`);

export const clock = (unix) => new Date(unix * 1000).toLocaleTimeString([], { hour12: false });

/** "a", "a and b", "a, b and c". */
export function listed(names) {
  if (names.length < 2) return names.join('');
  return `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}

/** Why the network is cut before a partition: "mandatory: fc6 holds 411 MB of weights". */
export const reasonOf = ({ reason }) => (reason ? `${reason.kind}: ${reason.text}` : '');

export const sum = (numbers) => numbers.reduce((total, each) => total + each, 0);
