// Starts the page: the token, the live events, and the parts.

import { call, hasToken, onRefused, setToken, takeTokenFromAddress } from './api.js';
import { setUpBoards } from './boards.js';
import { setUpBuild } from './build.js';
import { setUpBundles } from './bundles.js';
import { stopCamera } from './camera.js';
import { $, setHidden, setText, visible } from './dom.js';
import { follow } from './events.js';
import { setUpJobs } from './jobs.js';
import { clear, say, setUpMessages } from './messages.js';
import { setUpMoves } from './moves.js';
import { setUpPlacement } from './placement.js';
import { setUpPlan } from './plan.js';
import { setUpRun } from './run.js';
import { changed, state, take, watch } from './state.js';
import { setUpTimeline } from './timeline.js';

let stop = null; // function that ends the live events

function showLogin(message) {
  stop?.();
  stop = null;
  stopCamera();
  document.body.dataset.mode = 'login';
  setHidden($('lost'), true);
  setText($('token-message'), message);
  say(message);
  $('token').setAttribute('aria-invalid', String(message !== ''));
  $('token').focus();
}

function showApp() {
  document.body.dataset.mode = 'app';
  clear();
  stop?.();
  setConnection('connecting');
  stop = follow(take, setConnection);
  loadTargets();
}

async function loadTargets() {
  try {
    state.targets = await call('GET', '/api/targets');
    changed('targets');
  } catch (error) {
    if (error.status !== 401 && error.status !== 0) say(error.message); // the banner reports a lost connection
  }
}

function setConnection(connection, waitMs) {
  const before = state.connection;
  state.connection = connection;
  if (connection === 'lost' && before === 'live') state.frozenAt = performance.now();
  if (connection === 'live' && state.targets.length === 0) loadTargets();
  setText($('connection'), { live: 'live', lost: 'connection lost', connecting: 'connecting' }[connection]);
  $('connection').dataset.state = connection;
  document.body.classList.toggle('stale', connection === 'lost');
  setHidden($('lost'), connection !== 'lost');
  if (connection !== 'lost') return;
  const when = waitMs > 1500 ? `in ${Math.round(waitMs / 1000)} s` : 'now';
  setText($('lost'), `The connection to the manager is lost, and what you see is old. The page tries again ${when}.`);
}

async function enter(event) {
  event.preventDefault(); // the page sends requests with fetch, not with forms
  setToken($('token').value);
  try {
    state.targets = await call('GET', '/api/targets');
  } catch (error) {
    if (error.status === 401) return; // onRefused has shown it
    setText($('token-message'), error.message);
    say(error.message);
    return;
  }
  $('token').value = '';
  showApp();
  $('main').focus();
}

function setUp() {
  setUpMessages();
  for (const part of [
    setUpMoves,
    setUpBoards,
    setUpPlacement,
    setUpBuild,
    setUpPlan,
    setUpBundles,
    setUpJobs,
    setUpTimeline,
    setUpRun,
  ])
    part();
  watch(['status'], () => {
    const bundle = state.status?.bundle;
    document.title = bundle ? `${visible(bundle)} · HyPS manager` : 'HyPS manager';
  });
  $('token-form').addEventListener('submit', enter);
  $('leave').addEventListener('click', () => {
    setToken('');
    showLogin('');
  });
  onRefused(() => {
    setToken('');
    showLogin('wrong token');
  });
  // A file dropped outside a drop zone must not replace the page.
  for (const kind of ['dragover', 'drop']) window.addEventListener(kind, (event) => event.preventDefault());
  window.addEventListener('hashchange', () => takeTokenFromAddress() && showApp());
  takeTokenFromAddress();
  if (hasToken()) showApp();
  else showLogin('');
}

setUp();
