#!/usr/bin/env node
import { testudo } from './commands.ts';

try {
  await testudo().parseAsync();
} catch (error) {
  process.stderr.write(`testudo: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
