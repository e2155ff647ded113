// Decide cases with @cloud-copilot/iam-simulate: JSON in, JSON out. The argument is its node_modules.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const { runUnsafeSimulation } = createRequire(process.argv[2] + '/')('@cloud-copilot/iam-simulate')
const decided = JSON.parse(readFileSync(0, 'utf8')).map(({ action, resource, context, policies, boundary }) => {
  const decision = runUnsafeSimulation(
    {
      request: {
        principal: 'arn:aws:iam::123456789012:role/x',
        action,
        resource: { resource, accountId: '123456789012' },
        contextVariables: context,
      },
      identityPolicies: policies.map((policy, number) => ({ name: `p${number}`, policy })),
      permissionBoundaryPolicies: boundary ? [{ name: 'boundary', policy: boundary }] : undefined,
      serviceControlPolicies: [],
      resourceControlPolicies: [],
    },
    {}
  )
  return decision.result ?? decision
})
console.log(JSON.stringify(decided))
