// Steps are shared among tenants by rows, whatever their requests want.
#include <map>

#include "check.h"
#include "engine/planner.h"

using sdar::JobPtr;
using sdar::TenantShares;

namespace {

constexpr int32_t kBlock = 64;

struct Service {
  sdar::SequenceContext context{.context = 4096, .mask_id = 0, .end_ids = {}, .token_bytes = {}};
  std::vector<JobPtr> running;
  TenantShares shares;
  std::map<uint64_t, int64_t> rows;
  int64_t steps_without_rows = 0;

  void add(uint64_t tenant, int count) {
    for (int i = 0; i < count; i++) {
      sdar::Request r;
      r.tokens = {1};
      r.max_tokens = 8;
      r.block_length = 8;
      r.tenant = tenant;
      running.push_back(std::make_unique<sdar::Job>(std::move(r), context, int64_t(running.size())));
    }
  }
  /// `rows_of` each tenant's requests in a step.
  void step(const std::map<uint64_t, int32_t>& rows_of, double base_rows) {
    shares.begin(running, base_rows);
    int64_t sum = 0;
    for (const JobPtr& job : running) {
      const uint64_t tenant = job->request().tenant;
      if (!shares.may_compute(tenant)) continue;
      shares.computed(tenant, rows_of.at(tenant));
      rows[tenant] += rows_of.at(tenant);
      sum += rows_of.at(tenant);
    }
    steps_without_rows += sum == 0;
  }
};

}  // namespace

TEST("a tenant of many large blocks computes no more rows than one of a single small one") {
  Service s;
  s.add(1, 1), s.add(2, 10), s.add(3, 1);
  for (int i = 0; i < 1000; i++) s.step({{1, 8}, {2, kBlock}, {3, 8}}, 0);
  CHECK(s.rows[1] == 8000 && s.rows[3] == 8000 && s.steps_without_rows == 0);
  CHECK(s.rows[2] >= 8000 && s.rows[2] <= 8000 + TenantShares::kMostLead + kBlock);
}

TEST("what a step costs anyway is free, in equal parts") {
  Service s;
  s.add(1, 1), s.add(2, 10);
  for (int i = 0; i < 1000; i++) s.step({{1, 8}, {2, kBlock}}, 200);
  CHECK(s.rows[1] == 8000);
  CHECK(s.rows[2] >= 108'000 - 1000 && s.rows[2] <= 108'000 + 1000);
}

TEST("one tenant alone is not held back, and owes nothing to one that comes later") {
  Service s;
  s.add(2, 10);
  for (int i = 0; i < 100; i++) s.step({{2, kBlock}}, 0);
  CHECK(s.rows[2] == 100 * 10 * kBlock);
  s.add(1, 1);
  s.step({{1, 8}, {2, kBlock}}, 0);
  CHECK(s.rows[2] > 100 * 10 * kBlock && s.rows[1] == 8);
}

TEST("a lead does not go away by leaving for a moment") {
  Service s;
  s.add(1, 1), s.add(2, 10);
  for (int i = 0; i < 10; i++) s.step({{1, 8}, {2, kBlock}}, 0);
  std::vector<JobPtr> left;
  for (size_t i = 10; i > 0; i--) left.push_back(std::move(s.running[i]));
  s.running.resize(1);
  s.add(3, 1);
  s.step({{1, 8}, {3, 8}}, 0);
  for (JobPtr& job : left) s.running.push_back(std::move(job));
  const int64_t before = s.rows[2];
  s.step({{1, 8}, {2, kBlock}, {3, 8}}, 0);
  CHECK(s.rows[2] == before);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
