#!/usr/bin/env node
import { runSetkey } from './setkey-main.ts';

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // `setkey -D | head` ends when the reader does.
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

process.exitCode = await runSetkey(process.argv.slice(2), {
  out: (text) => process.stdout.write(text),
  err: (text) => process.stderr.write(text),
  stdin: process.stdin,
  environment: process.env,
  pid: process.pid,
});
