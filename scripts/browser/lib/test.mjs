// What the tests of one file share: a server, a browser, and who is signed in.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { launch, signedIn, watchPolicy, watched } from './browser.mjs';
import { Server } from './server.mjs';

/** Starts them before the tests of this file, and ends them after. `prepare` fills the server. */
export function stage(prepare = () => {}) {
  const on = {};
  before(async () => {
    on.server = await Server.start();
    await prepare(on);
    on.browser = await launch();
    on.state = await signedIn(on.browser, on.server);
  });
  after(async () => {
    await on.browser?.close();
    await on.server?.close();
  });
  /** Opens a page of a new context, signed in unless told otherwise, and closes it after `use`. It must have no fault. */
  on.page = async (use, options = {}) => {
    const context = await on.browser.newContext({ storageState: on.state, viewport: { width: 1280, height: 800 }, ...options });
    try {
      if (options.javaScriptEnabled !== false) await watchPolicy(context);
      const page = await watched(context, on.server);
      await use(page, context);
      assert.deepEqual(page.faults, []);
    } finally {
      await context.close();
    }
  };
  return on;
}
