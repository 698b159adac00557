# A shim for tools that only know node-gyp (prebuildify): the build is CMakeLists.txt, called by scripts/build.mjs, which writes
# build/Release/sdar_node.node. The action's output never exists, so that it always runs; it does nothing when all is up to date.
{
  "targets": [
    {
      "target_name": "sdar_node",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": [],
          "outputs": ["<(PRODUCT_DIR)/always"],
          "action": ["node", "scripts/build.mjs"],
        }
      ],
    }
  ]
}
