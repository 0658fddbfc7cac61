// Checks custom resources of Kubernetes against the schemas of those who define them: lint-resources.mjs FILE…
// It runs as a copy beside the node_modules that has them: an ES module looks for others from its own place upwards.
import { readFileSync } from "node:fs";
import { parseAllDocuments } from "yaml";

const packages = { "keda.sh": "@kubernetes-models/keda", "monitoring.coreos.com": "@kubernetes-models/prometheus-operator" };

let wrong = 0;
for (const file of process.argv.slice(2)) {
  for (const document of parseAllDocuments(readFileSync(file, "utf8"))) {
    const resource = document.toJS();
    const [group, version] = resource.apiVersion.split("/");
    try {
      if (document.errors.length > 0) throw document.errors[0];
      const models = await import(`${packages[group]}/${group}/${version}/${resource.kind}`);
      new models[resource.kind](resource).validate();
    } catch (error) {
      console.error(`${file}: ${resource.kind}: ${error.message}`);
      wrong += 1;
    }
  }
}
process.exit(wrong === 0 ? 0 : 1);
