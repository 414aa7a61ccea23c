// Opens a connection in this worker, and uses it in another one that shares the memory:
// `node --experimental-websocket main.mjs FOLDER URL`, with the output of wasm-bindgen in FOLDER.
import assert from 'node:assert';
import { readFileSync } from 'node:fs';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';

const [folder, url] = isMainThread ? process.argv.slice(2) : workerData.arguments;
const program = await import(resolve(folder, 'workers.js'));

if (isMainThread) {
    const module = new WebAssembly.Module(readFileSync(resolve(folder, 'workers_bg.wasm')));
    const { memory } = program.initSync({ module });
    assert(memory.buffer instanceof SharedArrayBuffer);
    const elsewhere = async task => {
        const worker = new Worker(fileURLToPath(import.meta.url), {
            workerData: { arguments: [folder, url], module, memory, task },
        });
        const [result] = await once(worker, 'message');
        await worker.terminate();
        return result;
    };

    assert.equal(await program.open(url), 'open');
    const errors = (await elsewhere('use_everything')).split('\n');
    console.log(errors.join('\n'));
    for (const line of errors) {
        assert.match(line, /^\w+: InvalidInput: the WebSocket belongs to another worker/);
    }
    // Nothing was sent, and the connection goes on.
    assert.equal(await program.talk(), 'equal equal equal');

    // The drop in another worker ends the connection, too: at its next event, or when its worker ends.
    assert.equal(await program.open(url), 'open');
    await elsewhere('abandon');
    assert.equal(await program.talk(), 'no connection');
    console.log('a connection stays with the worker that has opened it');
    process.exit(0);
}

program.initSync({ module: workerData.module, memory: workerData.memory });
parentPort.postMessage(await program[workerData.task]());
