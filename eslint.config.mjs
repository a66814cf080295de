import { readdirSync, readFileSync } from "node:fs";
import js from "@eslint/js";

const ASSETS = "src/unetscope/report/assets";
const script = readdirSync(ASSETS).filter((name) => name.endsWith(".js")).map((name) => readFileSync(`${ASSETS}/${name}`, "utf8")).join("\n");

// The page's files are one script (report/page.py): a name that is declared at the top of one is used in any of them.
const unusedInScript = {
  create: ({ report, sourceCode }) => ({
    Program() {
      for (const { name, identifiers } of sourceCode.scopeManager.globalScope.variables) {
        const uses = script.match(new RegExp(`(?<![\\w$])${name}(?![\\w$])`, "g"));
        if (identifiers.length && uses.length === 1) report({ node: identifiers[0], message: `${name} is used nowhere in the page's script` });
      }
    },
  }),
};

export default [
  { ignores: [".venv/", "build/", "docs/", "runs/"] },
  {
    files: [`${ASSETS}/*.js`],
    languageOptions: { ecmaVersion: 2023, sourceType: "script" },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    plugins: { page: { rules: { "unused-in-script": unusedInScript } } },
    rules: {
      ...js.configs.recommended.rules,
      "no-undef": "off", // the type check knows the names of all files
      "no-unused-vars": ["error", { vars: "local" }],
      "page/unused-in-script": "error",
      curly: ["error", "multi-line"],
      eqeqeq: "error",
      "no-implied-eval": "error",
      "no-shadow": "error",
      "no-var": "error",
      "object-shorthand": "error",
      "prefer-const": "error",
      "prefer-template": "error",
    },
  },
];
