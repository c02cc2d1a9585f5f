// Sends the camera's frames, one at a time: the next when the last is answered.

import { ApiError } from './api.js';
import { $ } from './dom.js';
import { act, button, clear, say } from './messages.js';

const LONGEST_SIDE = 640; // pixels; the models take 32 to 299
const QUALITY = 0.9;
const BUSY_MS = 500; // pause when too many jobs wait

let stream = null;

const REASONS = {
  NotAllowedError: 'The browser does not allow the camera. Allow it next to the address, then try again.',
  NotFoundError: 'This device has no camera.',
  NotReadableError: 'Another program uses the camera. Close it, then try again.',
};

async function open() {
  if (!navigator.mediaDevices?.getUserMedia)
    throw new ApiError(
      0,
      'Browsers allow the camera on https pages and on localhost only. Start the manager with --tls-cert and --tls-key.',
    );
  try {
    return await navigator.mediaDevices.getUserMedia({
      video: { facingMode: 'environment', width: { ideal: 1280 } },
    });
  } catch (error) {
    throw new ApiError(0, REASONS[error.name] ?? `The camera does not start: ${error.message}`);
  }
}

function frame(video, canvas) {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(video.videoWidth, video.videoHeight));
  canvas.width = Math.round(video.videoWidth * scale);
  canvas.height = Math.round(video.videoHeight * scale);
  canvas.getContext('2d').drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, 'image/jpeg', QUALITY));
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Send frame after frame until another stream, or none, takes the place of this one. */
async function loop(mine, submit, finish) {
  const canvas = document.createElement('canvas');
  let refused = false;
  for (let number = 1; stream === mine; number++) {
    const picture = await frame($('video'), canvas);
    if (stream !== mine) return;
    try {
      const job = await submit(picture, `camera-${number}.jpg`);
      if (refused) clear();
      refused = false;
      const done = await finish(job.id);
      if (done.state === 'failed') throw new ApiError(0, done.reason ?? 'The job failed.');
    } catch (error) {
      if (error.status !== 503) throw error;
      refused = true;
      say('Too many jobs wait. The camera goes on when some are done.');
      await pause(BUSY_MS);
    }
  }
}

function show(running) {
  $('video').hidden = !running;
  $('camera').hidden = running;
  $('camera-stop').hidden = !running;
  $('result').setAttribute('aria-live', running ? 'off' : 'polite'); // no screen reader keeps up with a camera
}

export const cameraRuns = () => stream !== null;

export function stopCamera() {
  if (!stream) return;
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  $('video').srcObject = null;
  show(false);
}

export function setUpCamera(submit, finish) {
  button($('camera'), async () => {
    const mine = (stream = await open());
    mine.getVideoTracks()[0].addEventListener('ended', stopCamera);
    const video = $('video');
    video.srcObject = mine;
    show(true);
    $('camera-stop').focus();
    await video.play();
    act(() => loop(mine, submit, finish)).then(() => stream === mine && stopCamera());
  });
  $('camera-stop').addEventListener('click', () => {
    stopCamera();
    $('camera').focus();
  });
}
