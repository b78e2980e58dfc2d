// Writes the pictures of the documentation: a real server with sessions that nobody had, looked at in a real browser.
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { launch, signedIn, watched } from './lib/browser.mjs';
import { Server, canNameHosts } from './lib/server.mjs';
import { livePast, playPresent } from './lib/week.mjs';

const folder = path.resolve(process.argv[2] ?? path.join(import.meta.dirname, '../../docs/pictures'));
const host = canNameHosts() ? 'ada-laptop' : undefined;
if (!host) console.error('The pictures will show the name of this machine: unshare cannot give programs another.');

const server = await Server.start({ host, begins: Date.now() - 8 * 86_400_000 });
const browser = await launch();
try {
  const past = await livePast(server);
  const present = await playPresent(server);
  await server.settled();
  // The counts of the overview and the transcripts of the running sessions are read in the background.
  await sleep(15_000);
  // What a machine reports of its spool comes with a delivery, and is a few seconds old: these are for the report.
  for (const pattern of ['giveBack', 'return']) {
    const tool = { tool_name: 'Grep', tool_input: { pattern }, tool_use_id: `toolu_${pattern}` };
    server.hook({ session_id: present.returns, cwd: '/home/ada/shop', hook_event_name: 'PreToolUse', ...tool });
    await server.settled();
    await sleep(8000);
  }

  const state = await signedIn(browser, server);
  fs.mkdirSync(folder, { recursive: true });
  const pictures = [
    ['overview', '/', {}],
    ['overview-dark', '/', { colorScheme: 'dark' }],
    ['overview-narrow', '/', { viewport: { width: 360, height: 740 } }],
    ['events', '/events', { viewport: { width: 1440, height: 800 } }],
    ['conversations', '/conversations', { viewport: { width: 1440, height: 800 } }],
    ['conversation', `/c/${past.rounding}?turn=0`, {}],
    ['usage', '/usage?w=7d', {}],
  ];
  for (const [name, at, how] of pictures) {
    const options = { viewport: { width: 1440, height: 900 }, colorScheme: 'light', timezoneId: 'UTC', ...how };
    const context = await browser.newContext({ ...options, storageState: state });
    const page = await watched(context, server);
    const answer = await page.goto(server.url + at, { waitUntil: 'load' });
    await page.waitForTimeout(500);
    const file = path.join(folder, `${name}.png`);
    await page.screenshot({ path: file });
    const size = fs.statSync(file).size;
    console.log(`${name}.png ${Math.ceil(size / 1024)} KB`);
    if (answer.status() !== 200) throw new Error(`${at} answers ${answer.status()}`);
    if (page.faults.length) throw new Error(`${at}: ${page.faults.join('\n')}`);
    if (size > 200 * 1024) throw new Error(`${name}.png is larger than 200 KB`);
    await context.close();
  }
} finally {
  await browser.close();
  await server.close();
}
