// Uploads a model, one .onnx file and its external data, with progress.

import { ApiError, path, upload } from './api.js';
import { $, dropZone, setText } from './dom.js';
import { mb, sum } from './format.js';
import { act } from './messages.js';

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;
const isModel = (file) => file.name.toLowerCase().endsWith('.onnx');

/** The name of the model that the files belong to: that of the .onnx file, or the chosen model's for other files. */
function nameFor(files, chosen) {
  const models = files.filter(isModel);
  if (models.length > 1) throw new ApiError(0, 'These are several .onnx files. Upload one model at a time.');
  if (!models.length && !chosen)
    throw new ApiError(0, 'None of these is an .onnx file. Choose the .onnx file together with its external data.');
  for (const { name } of files)
    if (!NAME.test(name))
      throw new ApiError(0, `Rename ${name}: names have only letters, digits, dots, hyphens and underscores.`);
  return models.length ? models[0].name.slice(0, -'.onnx'.length) || 'model' : chosen;
}

async function sendAll(files, model, signal) {
  const total = sum(files.map((file) => file.size));
  let before = 0;
  for (const file of files) {
    await upload(path('models', model, file.name), file, {
      signal,
      progress(sent) {
        const done = before + Math.min(sent, file.size);
        $('upload-progress').value = total ? done / total : 1;
        setText($('upload-amount'), `${file.name}: ${mb(done)} of ${mb(total)} MB`);
      },
    });
    before += file.size;
  }
}

let control = null;

async function send(files, chosen, whenDone) {
  if (control) throw new ApiError(0, 'An upload is under way. Wait until it is done, or cancel it.');
  const model = nameFor(files, chosen);
  control = new AbortController();
  $('upload').hidden = false;
  $('upload-progress').value = 0;
  setText($('upload-state'), '');
  try {
    await sendAll(
      [...files].sort((a, b) => isModel(b) - isModel(a)),
      model,
      control.signal,
    );
    setText($('upload-state'), `${model} is uploaded.`);
    whenDone(model);
  } catch (error) {
    setText($('upload-state'), error.name === 'AbortError' ? 'The upload was cancelled.' : 'The upload failed.');
    throw error;
  } finally {
    control = null;
    $('upload').hidden = true;
  }
}

/** chosen() returns the name of the model shown; whenDone(name) is called after an upload. */
export function setUpUpload(chosen, whenDone) {
  const start = (files) => act(() => send(files, chosen(), whenDone));
  const input = $('model-files');
  input.addEventListener('change', () => {
    if (input.files.length) start([...input.files]);
    input.value = ''; // the same file may be chosen again
  });
  dropZone($('drop-model'), start);
  $('upload-cancel').addEventListener('click', () => control?.abort());
}
