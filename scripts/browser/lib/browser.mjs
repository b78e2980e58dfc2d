// A real Chromium, and what it notices.
import fs from 'node:fs';
import path from 'node:path';
import { chromium } from 'playwright-core';

function executable() {
  if (process.env.ARRAKIS_CHROMIUM) return process.env.ARRAKIS_CHROMIUM;
  for (const folder of process.env.PATH.split(':')) {
    for (const name of ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']) {
      const file = path.join(folder, name);
      if (fs.existsSync(file)) return file;
    }
  }
  throw new Error('no Chromium is found; install it, or name its program in ARRAKIS_CHROMIUM');
}

/** Starts the browser. As root it has no sandbox. */
export function launch() {
  const args = ['--disable-quic', '--disable-background-networking', '--no-first-run'];
  if (process.getuid() === 0) args.push('--no-sandbox');
  return chromium.launch({ executablePath: executable(), args });
}

/**
 * A page whose faults are kept in `page.faults`: errors, messages of the console, violations of the policy, and requests to
 * anything but the server.
 */
export async function watched(context, server) {
  const page = await context.newPage();
  page.faults = [];
  const fault = (text) => { page.faults.push(`${new URL(page.url() === 'about:blank' ? server.url : page.url()).pathname}: ${text}`); };
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) fault(`console ${message.type()}: ${message.text()}`);
  });
  page.on('pageerror', (error) => fault(`error: ${error}`));
  page.on('dialog', (dialog) => { fault(`a dialog: ${dialog.message()}`); dialog.dismiss().catch(() => {}); });
  page.on('request', (request) => {
    if (new URL(request.url()).origin !== server.url) fault(`a request elsewhere: ${request.url()}`);
  });
  return page;
}

/** Counts violations of the policy in each document of a context, before any script of it runs. */
export async function watchPolicy(context) {
  await context.addInitScript(() => {
    window.__violations = [];
    document.addEventListener('securitypolicyviolation', (event) => {
      window.__violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
    });
  });
}

export const violations = (page) => page.evaluate(() => window.__violations);

/** Signs in with the admin key, by the form. */
export async function signIn(page, server) {
  await page.goto(`${server.url}/sign-in`);
  await page.fill('#key', server.key);
  await page.click('button.main');
  await page.waitForURL((url) => url.pathname === '/');
}

/** Signs in once; other contexts of the browser start from what this returns. */
export async function signedIn(browser, server) {
  const context = await browser.newContext();
  const page = await context.newPage();
  await signIn(page, server);
  const state = await context.storageState();
  await context.close();
  return state;
}
